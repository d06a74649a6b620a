//! Logins against an initiator made of text. Rows of the list of hostile inputs have their number in their name.

use std::collections::{BTreeMap, BTreeSet};

use super::chap::Algorithm;
use super::*;
use crate::view::{Access, Credentials, Host, Portal, Secret, Target};
use zerocopy::big_endian::{U16, U32};

const TARGET: &str = "iqn.2026-11.io.ashlar:t";
const INITIATOR: &str = "iqn.1994-05.org.host:a";
const SECRET: &[u8] = b"secret-of-host-a";
const MUTUAL: &[u8] = b"secret-of-target";
/// CSG and NSG.
const SECURITY_ON: u8 = 0x81;
const SECURITY: u8 = 0x00;
const OPERATIONAL_ON: u8 = 0x87;
const BOTH_AT_ONCE: u8 = 0x83;

struct Fixed;

impl ashlar_env::Rng for Fixed {
    fn random_u64(&self) -> u64 {
        0x0102_0304_0506_0708
    }
}

fn credentials(user: &str, secret: &[u8]) -> Credentials {
    Credentials { user: user.into(), secret: Secret::new(secret) }
}

fn targets(access: Access) -> Arc<Targets> {
    let target = Target {
        name: "iqn.2026-11.io.Ashlar:T".into(),
        alias: "alias".into(),
        access,
        listen: BTreeSet::new(),
        units: BTreeMap::new(),
        port_groups: BTreeMap::new(),
    };
    let portal = Portal { tag: 7, listen: ([0, 0, 0, 0], 3260).into(), advertise: None };
    Arc::new(Targets { targets: BTreeMap::from([(TARGET.into(), target)]), portals: vec![portal] })
}

fn with_chap() -> Arc<Targets> {
    let host = Host { chap: Some(credentials("a", SECRET)), mutual: Some(credentials("t", MUTUAL)) };
    targets(Access::Hosts(BTreeMap::from([(INITIATOR.into(), host)])))
}

fn open() -> Arc<Targets> {
    targets(Access::AnyHost)
}

fn header(flags: u8) -> request::Login {
    use zerocopy::FromZeros;
    let mut header = request::Login::new_zeroed();
    (header.opcode, header.flags, header.isid) = (0x43, flags, [0x40, 0, 1, 2, 3, 4]);
    (header.itt, header.cid) = (U32::new(9), U16::new(1));
    header
}

fn login(targets: &Arc<Targets>) -> Login {
    let local = ([10, 0, 0, 1], 3260).into();
    Login::new(Arc::clone(targets), local, Challenge::draw(&Fixed))
}

/// One request; `keys` are separated by blanks.
fn ask(login: &mut Login, flags: u8, keys: &str) -> Verdict {
    let text: Vec<u8> = keys.split_whitespace().flat_map(|pair| [pair.as_bytes(), b"\0"].concat()).collect();
    login.request(&header(flags), &text)
}

fn text_of(verdict: &Verdict) -> String {
    let (Verdict::Answer(response) | Verdict::Done(response, _)) = verdict else { panic!("{verdict:?}") };
    String::from_utf8(response.text.clone()).unwrap().replace('\0', " ")
}

fn names() -> String {
    format!("InitiatorName={INITIATOR} SessionType=Normal TargetName={TARGET}")
}

fn refused(verdict: &Verdict) -> LoginStatus {
    let (Verdict::Refuse(status) | Verdict::RefuseLater(status)) = verdict else { panic!("{verdict:?}") };
    *status
}

/// The first two requests of CHAP; the challenge as it came.
fn challenged(login: &mut Login, algorithm: Algorithm) -> (u8, Vec<u8>) {
    let first = ask(login, SECURITY, &format!("{} AuthMethod=CHAP,None", names()));
    assert_eq!(text_of(&first), "TargetPortalGroupTag=7 TargetAlias=alias AuthMethod=CHAP ");
    let text = text_of(&ask(login, SECURITY, &format!("CHAP_A={}", algorithm as u8)));
    let value = |key: &str| {
        let found = text.split(' ').find_map(|pair| pair.strip_prefix(key));
        found.unwrap_or_else(|| panic!("{key} in {text}")).to_owned()
    };
    let challenge = text::binary(&value("CHAP_C="), 32).unwrap();
    assert_eq!(challenge.len(), algorithm.digest_bytes());
    (value("CHAP_I=").parse().unwrap(), challenge)
}

const ALGORITHMS: [Algorithm; 4] = [Algorithm::Md5, Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha3];

fn to_base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = "0b".to_owned();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, n| bits << 8 | usize::from(*chunk.get(n).unwrap_or(&0)));
        for n in 0..4 {
            let sign = if n <= chunk.len() { SIGNS[bits >> (18 - 6 * n) & 63] } else { b'=' };
            out.push(char::from(sign));
        }
    }
    out
}

#[test]
fn an_open_target_is_reached_in_two_requests() {
    let mut login = login(&open());
    let verdict = ask(&mut login, SECURITY_ON, &format!("{} AuthMethod=CHAP,None", names()));
    assert_eq!(text_of(&verdict), "TargetPortalGroupTag=7 TargetAlias=alias AuthMethod=None ");
    let Verdict::Answer(response) = verdict else { panic!() };
    assert_eq!(response.flags, SECURITY_ON);
    let keys = "HeaderDigest=CRC32C,None DataDigest=None,CRC32C MaxConnections=4 InitialR2T=No ImmediateData=Yes \
        MaxRecvDataSegmentLength=65536 MaxBurstLength=16776192 FirstBurstLength=262144 DefaultTime2Wait=0 \
        DefaultTime2Retain=0 MaxOutstandingR2T=8 DataPDUInOrder=No DataSequenceInOrder=Yes ErrorRecoveryLevel=2 \
        OFMarker=Yes X-com.example=1";
    let verdict = ask(&mut login, OPERATIONAL_ON, keys);
    let expected = "HeaderDigest=CRC32C DataDigest=None MaxConnections=1 InitialR2T=No ImmediateData=Yes \
        MaxBurstLength=1048576 FirstBurstLength=65536 DefaultTime2Wait=2 DefaultTime2Retain=0 MaxOutstandingR2T=1 \
        DataPDUInOrder=Yes DataSequenceInOrder=Yes ErrorRecoveryLevel=0 OFMarker=No X-com.example=NotUnderstood \
        MaxRecvDataSegmentLength=262144 ";
    assert_eq!(text_of(&verdict), expected);
    let Verdict::Done(response, established) = verdict else { panic!() };
    assert_eq!(response.flags, OPERATIONAL_ON);
    assert_eq!(established.target.as_deref(), Some(TARGET));
    assert_eq!((established.initiator.as_str(), established.portal_tag), (INITIATOR, 7));
    let parameters = &established.parameters;
    assert!(parameters.header_digest && !parameters.data_digest && !parameters.initial_r2t);
    assert_eq!((parameters.send_segment_bytes, parameters.first_burst_bytes), (65536, 65536));
}

#[test]
fn any_stage_may_come_first_where_nobody_must_authenticate() {
    for flags in [OPERATIONAL_ON, BOTH_AT_ONCE] {
        assert!(matches!(ask(&mut login(&open()), flags, &names()), Verdict::Done(..)));
        let verdict = ask(&mut login(&with_chap()), flags, &names());
        assert_eq!(refused(&verdict), LoginStatus::AuthenticationFailed);
    }
}

#[test]
fn names_do_not_depend_on_case() {
    let upper = names().replace(TARGET, &TARGET.to_uppercase());
    assert!(matches!(ask(&mut login(&open()), BOTH_AT_ONCE, &upper), Verdict::Done(..)));
}

#[test]
fn discovery_needs_no_target() {
    let mut login = login(&with_chap());
    let keys = "InitiatorName=iqn.x SessionType=Discovery AuthMethod=None";
    assert_eq!(text_of(&ask(&mut login, SECURITY_ON, keys)), "AuthMethod=None ");
    let verdict = ask(&mut login, OPERATIONAL_ON, "HeaderDigest=None InitialR2T=Yes");
    let expected = "HeaderDigest=None InitialR2T=Irrelevant MaxRecvDataSegmentLength=262144 ";
    assert_eq!(text_of(&verdict), expected);
    let Verdict::Done(_, established) = verdict else { panic!() };
    assert_eq!(established.target, None);
}

#[test]
fn what_is_not_there_or_not_allowed() {
    let cases = [
        (open(), "SessionType=Normal", LoginStatus::MissingParameter),
        (open(), "InitiatorName=iqn.a", LoginStatus::MissingParameter),
        (open(), "InitiatorName=iqn.a TargetName=iqn.none", LoginStatus::TargetNotFound),
        (open(), "InitiatorName=iqn.a SessionType=Other", LoginStatus::SessionTypeNotSupported),
        (
            with_chap(),
            "InitiatorName=iqn.other TargetName=iqn.2026-11.io.ashlar:t",
            LoginStatus::NotAuthorized,
        ),
    ];
    for (targets, keys, status) in cases {
        assert_eq!(refused(&ask(&mut login(&targets), SECURITY_ON, keys)), status, "{keys}");
    }
    let mut elsewhere = (*open()).clone();
    elsewhere.targets.get_mut(TARGET).unwrap().listen.insert(([10, 0, 0, 2], 3260).into());
    let verdict = ask(&mut login(&Arc::new(elsewhere)), SECURITY_ON, &names());
    assert_eq!(refused(&verdict), LoginStatus::TargetNotFound);
}

#[test]
fn chap_one_way_and_mutual_with_all_digests_in_both_encodings() {
    for algorithm in ALGORITHMS {
        for base64 in [false, true] {
            for mutual in [false, true] {
                let mut login = login(&with_chap());
                let (id, challenge) = challenged(&mut login, algorithm);
                let response = algorithm.respond(id, SECRET, &challenge);
                let encode = |bytes: &[u8]| if base64 { to_base64(bytes) } else { text::to_hex(bytes) };
                let mut keys = format!("CHAP_N=a CHAP_R={}", encode(&response));
                if mutual {
                    keys += &format!(" CHAP_I=0x11 CHAP_C={}", encode(&[5; 24]));
                }
                let verdict = ask(&mut login, SECURITY_ON, &keys);
                let expected = algorithm.respond(0x11, MUTUAL, &[5; 24]);
                let expected = format!("CHAP_N=t CHAP_R={} ", text::to_hex(&expected));
                assert_eq!(text_of(&verdict), if mutual { expected } else { String::new() });
                assert!(matches!(ask(&mut login, OPERATIONAL_ON, ""), Verdict::Done(..)));
            }
        }
    }
}

#[test]
fn a_changed_rule_does_not_admit() {
    let verdict = ask(&mut login(&open()), BOTH_AT_ONCE, &names());
    let Verdict::Done(_, established) = verdict else { panic!() };
    assert!(established.is_admitted_by(&open()));
    assert!(!established.is_admitted_by(&with_chap()));
    assert!(!established.is_admitted_by(&Targets::default()));
}

#[test]
fn text_may_go_on_in_the_next_request() {
    let mut login = login(&open());
    let text = format!("{} AuthMethod=None ", names()).replace(' ', "\0");
    let (first, second) = text.as_bytes().split_at(30);
    let verdict = login.request(&header(0x40), first);
    assert_eq!(verdict, Verdict::Answer(Response { flags: 0, text: Vec::new() }));
    assert!(text_of(&login.request(&header(SECURITY_ON), second)).contains("AuthMethod=None"));
}

#[test]
fn i01_an_unknown_key_of_64_characters() {
    let keys = format!("{} {}=1", names(), "x".repeat(64));
    assert_eq!(refused(&ask(&mut login(&open()), SECURITY_ON, &keys)), LoginStatus::InitiatorError);
}

#[test]
fn i02_hundreds_of_unknown_keys() {
    let mut login = login(&open());
    let keys: Vec<String> = (0..700).map(|n| format!("X-{n}=1")).collect();
    let verdict = ask(&mut login, OPERATIONAL_ON, &format!("{} {}", names(), keys.join(" ")));
    assert_eq!(refused(&verdict), LoginStatus::InitiatorError);
}

#[test]
fn i03_a_text_without_its_final_nul() {
    let mut text = format!("{} X=", names()).replace(' ', "\0").into_bytes();
    text.resize(8192, b'v');
    assert_eq!(refused(&login(&open()).request(&header(SECURITY_ON), &text)), LoginStatus::InitiatorError);
}

/// A CHAP_R for an identifier and a challenge.
type Respond<'a> = dyn Fn(u8, &[u8]) -> String + 'a;

#[test]
fn i04_wrong_responses() {
    for algorithm in ALGORITHMS {
        let right = |id, challenge: &[u8]| algorithm.respond(id, SECRET, challenge);
        let longer = |id, challenge: &[u8]| text::to_hex(&[&right(id, challenge)[..], &[0; 2]].concat());
        let cases: [&Respond<'_>; 9] = [
            &longer,
            &|_, _| to_base64(&[0; 48]),
            &|_, _| "0xABC".into(),
            &|_, _| "0x".into(),
            &|_, _| "0xZZ".into(),
            &|_, _| "0b!!!!".into(),
            &|id, challenge| text::to_hex(&right(id, challenge)[1..]),
            &|id, challenge| text::to_hex(&algorithm.respond(id, b"another secret", challenge)),
            &|id, challenge| text::to_hex(&right(id, challenge)).split_off(2),
        ];
        for (n, case) in cases.iter().enumerate() {
            let mut login = login(&with_chap());
            let (id, challenge) = challenged(&mut login, algorithm);
            let verdict = ask(&mut login, SECURITY_ON, &format!("CHAP_N=a CHAP_R={}", case(id, &challenge)));
            assert_eq!(verdict, Verdict::RefuseLater(LoginStatus::AuthenticationFailed), "case {n}");
        }
    }
}

/// Ends CHAP with the right response and `more`.
fn finish_with(more: &str, user: &str) -> Verdict {
    let mut login = login(&with_chap());
    let (id, challenge) = challenged(&mut login, Algorithm::Md5);
    let response = text::to_hex(&Algorithm::Md5.respond(id, SECRET, &challenge));
    let more = more.replace("{own}", &text::to_hex(&challenge));
    ask(&mut login, SECURITY_ON, &format!("{user} CHAP_R={response} {more}"))
}

#[test]
fn i05a_numbers_out_of_range() {
    let long = format!("CHAP_I=1 CHAP_C=0x{}", "00".repeat(1025));
    for more in ["CHAP_I=256 CHAP_C=0x01", "CHAP_I=-1 CHAP_C=0x01", "CHAP_I=0x100 CHAP_C=0x01", "CHAP_C=0x01"]
    {
        assert_eq!(refused(&finish_with(more, "CHAP_N=a")), LoginStatus::AuthenticationFailed, "{more}");
    }
    // Longer than any value may be: the text itself is wrong.
    let status = refused(&finish_with(&long, "CHAP_N=a"));
    assert!(matches!(status, LoginStatus::InitiatorError | LoginStatus::AuthenticationFailed));
    let mut login = login(&with_chap());
    ask(&mut login, SECURITY, &format!("{} AuthMethod=CHAP", names()));
    assert_eq!(refused(&ask(&mut login, SECURITY, "CHAP_A=0,999")), LoginStatus::AuthenticationFailed);
}

#[test]
fn i05b_a_reflected_challenge_and_a_missing_name() {
    let reflected = finish_with("CHAP_I=1 CHAP_C={own}", "CHAP_N=a");
    assert_eq!(refused(&reflected), LoginStatus::AuthenticationFailed);
    assert_eq!(refused(&finish_with("", "")), LoginStatus::AuthenticationFailed);
}

#[test]
fn i05c_a_name_that_looks_like_a_number() {
    assert_eq!(refused(&finish_with("", "CHAP_N=0x61")), LoginStatus::AuthenticationFailed);
    let host = Host { chap: Some(credentials("0x61", SECRET)), mutual: None };
    let targets = targets(Access::Hosts(BTreeMap::from([(INITIATOR.into(), host)])));
    let mut login = login(&targets);
    let (id, challenge) = challenged(&mut login, Algorithm::Md5);
    let response = text::to_hex(&Algorithm::Md5.respond(id, SECRET, &challenge));
    let verdict = ask(&mut login, SECURITY_ON, &format!("CHAP_N=0x61 CHAP_R={response}"));
    assert!(matches!(verdict, Verdict::Answer(_)));
}

#[test]
fn i06_stages_and_fields_that_break_the_rules() {
    let skip = ask(&mut login(&with_chap()), BOTH_AT_ONCE, &format!("{} AuthMethod=None", names()));
    assert_eq!(refused(&skip), LoginStatus::AuthenticationFailed);
    for flags in [0x08, 0x8B, 0xC1, 0x80, 0x82, 0x85, 0x84] {
        let verdict = ask(&mut login(&open()), flags, &names());
        assert_eq!(refused(&verdict), LoginStatus::InitiatorError, "{flags:02x}");
    }
    let changes: [&dyn Fn(&mut request::Login); 6] = [
        &|header| header.itt = U32::new(10),
        &|header| header.isid[5] ^= 1,
        &|header| header.version_max = 1,
        &|header| header.tsih = U16::new(1),
        &|header| header.cid = U16::new(2),
        &|header| header.flags = SECURITY_ON,
    ];
    for change in changes {
        let mut login = login(&open());
        ask(&mut login, SECURITY_ON, &names());
        let mut header = header(OPERATIONAL_ON);
        change(&mut header);
        assert_eq!(refused(&login.request(&header, b"")), LoginStatus::InitiatorError);
    }
    let mut newer = header(SECURITY_ON);
    (newer.version_min, newer.version_max) = (1, 2);
    assert_eq!(refused(&login(&open()).request(&newer, b"")), LoginStatus::UnsupportedVersion);
}

#[test]
fn i08a_long_requests() {
    let verdict = login(&open()).request(&header(SECURITY_ON), &[0; 8193]);
    assert_eq!(refused(&verdict), LoginStatus::InitiatorError);
    let mut login = login(&open());
    for round in 0.. {
        let verdict = login.request(&header(0x40), &[b'x'; 8192]);
        if matches!(verdict, Verdict::Refuse(LoginStatus::InitiatorError)) {
            assert_eq!(round, 2, "no more than 16 KiB of a text are kept");
            return;
        }
    }
}

#[test]
fn i08c_too_many_requests_and_broken_pairs() {
    let mut many = login(&open());
    ask(&mut many, SECURITY, &names());
    let last =
        (0..30).map(|_| ask(&mut many, SECURITY, "")).find(|verdict| matches!(verdict, Verdict::Refuse(_)));
    assert_eq!(last, Some(Verdict::Refuse(LoginStatus::InitiatorError)));
    for keys in ["novalue", "X=1 X=2", "InitialR2T=Yes InitialR2T=Yes"] {
        let verdict = ask(&mut login(&open()), SECURITY_ON, &format!("{} {keys}", names()));
        assert_eq!(refused(&verdict), LoginStatus::InitiatorError, "{keys}");
    }
    let inside = b"InitiatorName=iqn.a\0Tar\0getName=b\0";
    assert_eq!(refused(&login(&open()).request(&header(SECURITY_ON), inside)), LoginStatus::InitiatorError);
    // The same name again is no harm.
    let mut twice = login(&open());
    ask(&mut twice, SECURITY_ON, &names());
    let verdict = ask(&mut twice, OPERATIONAL_ON, &format!("InitiatorName={INITIATOR}"));
    assert!(matches!(verdict, Verdict::Done(..)));
}

proptest::proptest! {
    /// Whatever keys come in whatever stages: an open target never asks for a secret, a closed one is never passed.
    #[test]
    fn nobody_gets_in_without_the_secret(
        requests in proptest::collection::vec((
            proptest::sample::select(vec![0x00, 0x81, 0x83, 0x87, 0x04, 0x40]),
            proptest::collection::vec(proptest::sample::select(vec![
                "AuthMethod=CHAP", "AuthMethod=None", "CHAP_A=5", "CHAP_N=a", "CHAP_R=0x00112233445566778899aabbccddeeff",
                "CHAP_I=1", "CHAP_C=0x0102", "InitialR2T=No", "SessionType=Normal", "HeaderDigest=CRC32C",
            ]), 0..5),
        ), 0..8),
    ) {
        let mut login = login(&with_chap());
        let mut first = names();
        for (flags, keys) in requests {
            let verdict = ask(&mut login, flags, &format!("{} {}", std::mem::take(&mut first), keys.join(" ")));
            proptest::prop_assert!(!matches!(verdict, Verdict::Done(..)));
            if !matches!(verdict, Verdict::Answer(_)) {
                break;
            }
        }
    }
}
