//! The store against restarts, crashes, full disks and rotten bytes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};

use proptest::prelude::*;
use redb::StorageBackend;
use redb::backends::FileBackend;
use tempfile::TempDir;

use super::*;
use crate::state::testing::{command, name, new_host, new_target, new_volume, volume_name};
use crate::state::{Action, VOLUME_BYTES_MAX};

/// A disk that can be told to fill up.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Every write fails with "no space left" while this is set ...
    full: Arc<AtomicBool>,
    /// ... once this many further writes have passed.
    grace: Arc<AtomicI64>,
}

impl Faults {
    pub fn fill_after(&self, writes: i64) {
        self.grace.store(writes, SeqCst);
        self.full.store(true, SeqCst);
    }

    pub fn clear(&self) {
        self.full.store(false, SeqCst);
    }

    fn check(&self) -> io::Result<()> {
        if self.full.load(SeqCst) && self.grace.fetch_sub(1, SeqCst) <= 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

/// A new store in `directory` on a disk with `faults`.
pub fn store_with_faults(directory: &Path, faults: &Faults) -> (Store, State) {
    Store::open_on(&directory.join(FILE_NAME), Medium { faults: faults.clone() }).unwrap()
}

#[derive(Debug)]
pub struct FaultyBackend {
    inner: FileBackend,
    faults: Faults,
}

impl FaultyBackend {
    pub fn new(inner: FileBackend, faults: Faults) -> Self {
        FaultyBackend { inner, faults }
    }
}

impl StorageBackend for FaultyBackend {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.check()?;
        self.inner.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.faults.check()?;
        // What a power loss would do is not tested here, and a real sync would only make it slow.
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faults.check()?;
        self.inner.write(offset, data)
    }
}

struct Bench {
    store: Option<Store>,
    state: State,
    faults: Faults,
    directory: TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        let medium = Medium { faults: faults.clone() };
        let (store, state) = Store::open_on(&directory.path().join(FILE_NAME), medium).unwrap();
        Bench { store: Some(store), state, faults, directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join(FILE_NAME)
    }

    /// Applies and keeps an action, as the control task does.
    fn run(&mut self, action: Action) -> Result<(), StoreError> {
        let command = command(action);
        let mut after = self.state.clone();
        after.apply(&command).unwrap();
        self.store.as_mut().unwrap().append(&command, &self.state, &after)?;
        self.state = after;
        Ok(())
    }

    fn create(&mut self, volume: &str) -> Result<(), StoreError> {
        self.run(Action::CreateVolume(new_volume(volume)))
    }

    /// A state with one object of each kind.
    fn populate(&mut self) {
        self.create("db").unwrap();
        self.run(Action::CreateTarget(new_target("vmware"))).unwrap();
        self.run(Action::CreateHost(new_host("esx1"))).unwrap();
        self.run(Action::AttachVolume { target: name("vmware"), volume: volume_name("db"), nsid: None })
            .unwrap();
        self.run(Action::AllowHost { target: name("vmware"), host: name("esx1") }).unwrap();
    }

    fn reopen(&mut self) {
        self.store = None;
        let (store, state) = Store::open_on(&self.path(), Medium { faults: self.faults.clone() }).unwrap();
        assert_eq!(state, self.state);
        assert_eq!(state.hash(), self.state.hash());
        self.store = Some(store);
    }
}

/// Opens a file made of `bytes`.
fn open_bytes(bytes: &[u8]) -> (Result<State, StoreError>, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    fs::write(&path, bytes).unwrap();
    let result = Store::open_on(&path, Medium::default()).map(|(_, state)| state);
    (result, fs::read(&path).unwrap())
}

#[test]
fn a_restart_finds_what_was_there() {
    let mut bench = Bench::new();
    bench.reopen();
    bench.populate();
    bench.reopen();
    bench.create("second").unwrap();
    bench.reopen();
    assert_eq!(bench.store.as_ref().unwrap().index(), 6);
}

#[test]
fn every_instant_survives_a_kill() {
    let mut bench = Bench::new();
    for i in 0..20 {
        bench.create(&format!("v{i}")).unwrap();
        // What the kernel has of the file while the process is still running is what a kill leaves.
        let (found, _) = open_bytes(&fs::read(bench.path()).unwrap());
        assert_eq!(found.unwrap(), bench.state);
    }
}

#[test]
fn snapshots_replace_the_log() {
    let mut bench = Bench::new();
    bench.populate();
    for size in 0..2 * LOG_ENTRIES_MAX {
        let size_bytes = VOLUME_BYTES_MAX - size * 512;
        let volume = volume_name("db");
        bench.run(Action::ResizeVolume { volume, size_bytes, allow_shrink: true }).unwrap();
    }
    let store = bench.store.as_ref().unwrap();
    assert_eq!(store.snapshot_index, 2 * LOG_ENTRIES_MAX);
    bench.reopen();
    let length = fs::metadata(bench.path()).unwrap().len();
    assert!(length < 16 << 20, "{length} bytes for a handful of objects");
}

#[test]
fn only_the_user_of_the_node_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    drop(Store::open(&path).unwrap());
    assert_eq!(mode(), 0o600);
    // As an earlier release made it.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    drop(Store::open(&path).unwrap());
    assert_eq!(mode(), 0o600);
}

#[test]
fn a_second_process_is_kept_away() {
    let mut bench = Bench::new();
    let error = Store::open(&bench.path()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(FILE_NAME) && text.contains(&format!("process {}", std::process::id())), "{text}");
    bench.populate();
    bench.reopen();
}

#[test]
fn a_full_disk_loses_nothing_and_passes() {
    // Whatever write of the two commits is the first to fail.
    for grace in 0..24 {
        let mut bench = Bench::new();
        bench.populate();
        bench.faults.fill_after(grace);
        // With enough grace some commands still succeed.
        let failed =
            (0..100).map(|i| bench.create(&format!("v{i}"))).find_map(Result::err).expect("the disk is full");
        assert!(matches!(failed, StoreError::NoSpace { .. }), "{failed:?}");
        assert!(failed.to_string().contains(FILE_NAME));
        let error = bench.create("again").unwrap_err();
        assert!(matches!(error, StoreError::NoSpace { .. }), "{error:?}");
        bench.faults.clear();
        bench.create("later").unwrap();
        bench.reopen();
        bench.create("last").unwrap();
        bench.reopen();
    }
}

#[test]
fn a_crash_on_a_full_disk_keeps_every_acknowledged_command() {
    for grace in 0..24 {
        let mut bench = Bench::new();
        bench.populate();
        bench.faults.fill_after(grace);
        let mut acknowledged = bench.state.clone();
        while bench.create(&format!("v{}", bench.state.applied())).is_ok() {
            acknowledged = bench.state.clone();
        }
        let found = open_bytes(&fs::read(bench.path()).unwrap()).0.unwrap();
        // The command that failed may be there or not.
        assert!(
            found == acknowledged || found.applied() == acknowledged.applied() + 1,
            "grace {grace}: {} of {}",
            found.applied(),
            acknowledged.applied()
        );
    }
}

#[test]
fn other_versions_are_refused_and_left_alone() {
    let mut bench = Bench::new();
    bench.populate();
    bench.store = None;
    let set = |key: &str, value: &[u8]| {
        let database = Medium::default().open(&bench.path()).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert(key, value).unwrap();
        transaction.commit().unwrap();
        drop(database);
        open_bytes(&fs::read(bench.path()).unwrap()).0.unwrap_err()
    };
    let snapshot = String::from_utf8(State::default().encode()).unwrap();
    let later = snapshot.replacen("\"format_version\":2", "\"format_version\":3", 1);
    assert_ne!(snapshot, later);
    let error = set("snapshot", later.as_bytes());
    assert!(matches!(error, StoreError::Version { .. }), "{error}");
    assert!(error.to_string().contains("version 3"), "{error}");
    let error = set("format", b"7");
    assert!(error.to_string().contains("version 7"), "{error}");
    let refusal = error.refuse("start the node", true);
    assert!(refusal.not_lost.contains("not written to"), "{refusal:?}");
}

#[test]
fn what_was_never_a_control_state_is_refused_and_left_alone() {
    for bytes in [&b""[..], b"x", b"hello, world", &[0; 4096], &[0xff; 100_000]] {
        let (result, after) = open_bytes(bytes);
        assert!(matches!(result, Err(StoreError::Damaged { .. })), "{result:?}");
        assert_eq!(after, bytes);
    }
    let directory = tempfile::tempdir().unwrap();
    let error = Store::open(&directory.path().join("none").join(FILE_NAME)).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
    let error = Store::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
}

/// The bytes of a store with `populate`'s state, closed in good order or killed, and the state.
fn sample(clean: bool) -> (Vec<u8>, State) {
    let mut bench = Bench::new();
    bench.populate();
    if clean {
        bench.store = None;
    }
    (fs::read(bench.path()).unwrap(), bench.state)
}

/// Damaged bytes give the right state or an error that leaves them alone.
fn check_damaged(bytes: &[u8], state: &State, what: &str) {
    let (result, after) = open_bytes(bytes);
    match result {
        Ok(found) => assert_eq!(found, *state, "{what}"),
        Err(StoreError::Damaged { .. } | StoreError::Version { .. }) => {
            assert_eq!(after, bytes, "{what}: the damaged file was written to")
        }
        Err(other) => panic!("{what}: {other:?}"),
    }
}

#[test]
fn any_flipped_bit_of_the_header_is_noticed_or_harmless() {
    const HEADER_BYTES: usize = 320;
    for clean in [true, false] {
        let (bytes, state) = sample(clean);
        for position in 0..HEADER_BYTES {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1 << (position % 8);
            check_damaged(&damaged, &state, &format!("clean {clean}, byte {position}"));
            if position == 9 {
                for bit in 0..8 {
                    let mut damaged = bytes.clone();
                    damaged[position] ^= 1 << bit;
                    check_damaged(&damaged, &state, &format!("clean {clean}, byte {position} bit {bit}"));
                }
            }
        }
    }
}

#[test]
fn any_truncation_is_noticed() {
    for clean in [true, false] {
        let (bytes, state) = sample(clean);
        for length in
            (0..bytes.len()).step_by(bytes.len() / 40 + 1).chain([1, 9, 10, 319, 4096, bytes.len() - 1])
        {
            check_damaged(&bytes[..length], &state, &format!("clean {clean}, {length} of {}", bytes.len()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_anywhere_is_noticed_or_harmless(
        clean in any::<bool>(),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 1usize..600), 1..4),
    ) {
        let (bytes, state) = sample(clean);
        let mut damaged = bytes.clone();
        // Most of a file is unused space; damage goes where there is something.
        let used: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i] != 0).collect();
        for (place, value, length) in places {
            let start = used[place.index(used.len())];
            for byte in damaged.iter_mut().skip(start).take(length) {
                *byte ^= value;
            }
        }
        check_damaged(&damaged, &state, "random damage");
    }
}

/// A file as a release left it that knew version 1 of the state only: a snapshot, and a log after it.
fn version_1_file(path: &Path) {
    let snapshot = crate::state::VERSION_1.trim_end().as_bytes();
    let database = Medium::default().open(path).unwrap();
    let (index, chain) = (8, [7; 32]);
    let head = Head { index, chain, sha256: Sha256::digest(snapshot).into() };
    let command = br#"{"time_ms":1,"action":{"do":"create_volume","id":"c2e5b92a-5ac4-540e-a804-8109c876bf45","name":"db","backing":{"type":"memory"},"size_bytes":1048576,"block_size_bytes":null,"read_only":false}}"#;
    let chain = next_chain(&chain, index + 1, command);
    let entry = Entry { chain, command: serde_json::from_slice(command).unwrap() };
    let transaction = database.begin_write().unwrap();
    {
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert("format", &b"1"[..]).unwrap();
        meta.insert("head", serde_json::to_vec(&head).unwrap().as_slice()).unwrap();
        meta.insert("snapshot", snapshot).unwrap();
        meta.insert("seal", &b"9"[..]).unwrap();
        let mut log = transaction.open_table(LOG).unwrap();
        log.insert(index + 1, serde_json::to_vec(&entry).unwrap().as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn a_state_of_an_earlier_release_is_opened_and_brought_up_to_date() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    version_1_file(&path);
    let (store, state) = Store::open(&path).unwrap();
    assert_eq!((store.index(), state.applied(), state.volumes().len()), (9, 9, 2));
    assert_eq!(state.groups().values().filter(|group| group.id.0 != 0).count(), 2);
    drop(store);

    // The earlier release looks at the version of the snapshot first, and there is nothing else for it to read.
    let (snapshot, entries) = {
        let database = Medium::default().open(&path).unwrap();
        let transaction = database.begin_read().unwrap();
        let meta = transaction.open_table(META).unwrap();
        let snapshot = meta.get("snapshot").unwrap().unwrap().value().to_vec();
        (snapshot, redb::ReadableTableMetadata::len(&transaction.open_table(LOG).unwrap()).unwrap())
    };
    assert!(!State::is_outdated(&snapshot));
    assert_eq!(entries, 0);

    let (mut store, again) = Store::open(&path).unwrap();
    assert_eq!(again, state);
    let create = command(Action::CreateVolume(new_volume("later")));
    let mut after = again.clone();
    after.apply(&create).unwrap();
    store.append(&create, &again, &after).unwrap();
    drop(store);
    assert_eq!(Store::open(&path).unwrap().1, after);
}
