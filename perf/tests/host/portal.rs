//! A small iSCSI target in this process: one unit in memory, a thread per session.
//!
//! It does just enough for an initiator to log in and move data, checks what the initiator sends, and misbehaves on
//! request. Headers are written and read by their byte positions (RFC 7143, section 11), apart from the structures
//! of the initiator.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ashlar_codec::crc32c;

pub const BLOCKS: u64 = 4096;
pub const BLOCK_BYTES: u64 = 512;
/// The target's MaxRecvDataSegmentLength, small so that one R2T takes several Data-Out.
const SEGMENT_BYTES: usize = 8192;
/// FirstBurstLength.
const FIRST_BURST_BYTES: usize = 16_384;
/// MaxBurstLength.
const MAX_BURST_BYTES: usize = 65_536;
/// Data of one Data-In and of one R2T, so that large transfers take several.
const PIECE_BYTES: usize = 20_480;
/// Data-In of one sequence: no more than MaxBurstLength.
const PIECES_OF_BURST: usize = MAX_BURST_BYTES / PIECE_BYTES;
/// Commands that the window takes.
const WINDOW: u32 = 8;
/// The target transfer tag of every R2T.
const R2T_TAG: u32 = 99;

/// What the target does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flaw {
    #[default]
    None,
    /// Acknowledges a write and does not do it, once in 50.
    LostWrite,
    /// Flips one bit of the data of every read, after the digest was made.
    BitFlip,
    /// Completes every read twice.
    CompletesTwice,
    /// Says a read succeeded after half its data, without a residual.
    ShortRead,
    /// Sends a whole read as one sequence.
    LongBurst,
    /// Counts DataSN from 1.
    WrongDataSn,
    /// Skips a StatSN with every read.
    WrongStatSn,
    /// Closes the connection at every 50th command, before doing it.
    Hangs,
    /// Refuses every login with 03/01, service unavailable.
    Refuses,
    /// Asks for a logout at the first read.
    AsksForLogout,
}

pub struct Portal {
    pub addr: String,
    shared: Arc<Shared>,
}

struct Shared {
    flaw: Flaw,
    disk: Mutex<Vec<u8>>,
    commands: AtomicU64,
    pongs: AtomicU64,
    logouts: AtomicU64,
}

impl Portal {
    pub fn start(flaw: Flaw) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            flaw,
            disk: Mutex::new(vec![0; (BLOCKS * BLOCK_BYTES) as usize]),
            commands: AtomicU64::new(0),
            pongs: AtomicU64::new(0),
            logouts: AtomicU64::new(0),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                stream.set_nodelay(true).unwrap();
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || Connection::new(stream, shared).run());
            }
        });
        Self { addr, shared }
    }

    /// Reads and writes received so far.
    pub fn commands(&self) -> u64 {
        self.shared.commands.load(Ordering::Relaxed)
    }

    /// Pings that were answered.
    pub fn pongs(&self) -> u64 {
        self.shared.pongs.load(Ordering::Relaxed)
    }

    /// Sessions ended in order.
    pub fn logouts(&self) -> u64 {
        self.shared.logouts.load(Ordering::Relaxed)
    }
}

/// The connection is over.
struct Over;

impl<E: std::error::Error> From<E> for Over {
    fn from(_: E) -> Self {
        Self
    }
}

/// A PDU: header and data.
type Pdu = ([u8; 48], Vec<u8>);

struct Connection {
    stream: TcpStream,
    shared: Arc<Shared>,
    digest: bool,
    initial_r2t: bool,
    immediate_data: bool,
    stat_sn: u32,
    exp_cmd_sn: u32,
    /// Unit attentions still to be reported.
    attentions: u32,
    /// Commands that came while data were awaited.
    early: VecDeque<Pdu>,
}

fn word(header: &[u8; 48], at: usize) -> u32 {
    u32::from_be_bytes(*header[at..].first_chunk().unwrap())
}

fn put(header: &mut [u8; 48], at: usize, value: u32) {
    header[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

impl Connection {
    fn new(stream: TcpStream, shared: Arc<Shared>) -> Self {
        Self {
            stream,
            shared,
            digest: false,
            initial_r2t: true,
            immediate_data: true,
            stat_sn: 1000,
            exp_cmd_sn: 0,
            attentions: 2,
            early: VecDeque::new(),
        }
    }

    fn run(mut self) {
        let _ = self.serve();
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn serve(&mut self) -> Result<(), Over> {
        self.login()?;
        self.ping()?;
        loop {
            let (header, data) = match self.early.pop_front() {
                Some(early) => early,
                None => self.receive()?,
            };
            match header[0] {
                0x01 => self.command(&header, &data)?,
                0x40 => self.take_pong(&header, &data),
                0x46 => return self.logout(&header),
                other => panic!("opcode {other:#04x}"),
            }
        }
    }

    /// A PDU; lengths, padding and digests are checked.
    fn receive(&mut self) -> Result<Pdu, Over> {
        let mut header = [0; 48];
        self.stream.read_exact(&mut header)?;
        assert_eq!(header[4], 0, "additional header segments");
        if self.digest {
            assert_eq!(self.read(4)?, crc32c(&header).to_le_bytes());
        }
        let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        let mut data = self.read(length.next_multiple_of(4))?;
        assert!(data[length..].iter().all(|&byte| byte == 0));
        if self.digest && length > 0 {
            assert_eq!(self.read(4)?, crc32c(&data).to_le_bytes());
        }
        data.truncate(length);
        Ok((header, data))
    }

    fn read(&mut self, length: usize) -> Result<Vec<u8>, Over> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Sends a PDU with the numbers filled in; `counted` if it takes a StatSN.
    fn send(&mut self, mut header: [u8; 48], data: &[u8], counted: bool) -> Result<(), Over> {
        header[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
        put(&mut header, 24, self.stat_sn);
        put(&mut header, 28, self.exp_cmd_sn);
        put(&mut header, 32, self.exp_cmd_sn.wrapping_add(WINDOW - 1));
        self.stat_sn = self.stat_sn.wrapping_add(u32::from(counted));
        let mut bytes = header.to_vec();
        if self.digest {
            bytes.extend(crc32c(&header).to_le_bytes());
        }
        let mut data = data.to_vec();
        data.resize(data.len().next_multiple_of(4), 0);
        let digest = crc32c(&data).to_le_bytes();
        if self.shared.flaw == Flaw::BitFlip && header[0] == 0x25 && data.len() > 100 {
            data[100] ^= 1;
        }
        bytes.extend(&data);
        if self.digest && !data.is_empty() {
            bytes.extend(digest);
        }
        Ok(self.stream.write_all(&bytes)?)
    }

    fn login(&mut self) -> Result<(), Over> {
        let (header, data) = self.receive()?;
        assert_eq!((header[0], header[1]), (0x43, 0x87), "login, operational to full feature phase");
        assert_eq!(header[14..16], [0, 0], "a new session");
        self.exp_cmd_sn = word(&header, 24);
        let mut response = [0; 48];
        (response[0], response[1]) = (0x23, 0x87);
        response[8..14].copy_from_slice(&header[8..14]);
        response[15] = 1;
        response[16..20].copy_from_slice(&header[16..20]);
        if self.shared.flaw == Flaw::Refuses {
            (response[36], response[37]) = (3, 1);
            self.send(response, &[], true)?;
            return Err(Over);
        }
        let text = String::from_utf8(data).unwrap();
        let offered = |key: &str| {
            let found = text.split('\0').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
            found.unwrap_or_else(|| panic!("{key} in {text:?}")).to_owned()
        };
        assert_eq!(offered("TargetName"), "iqn.2026-01.test:fake");
        assert_eq!((offered("SessionType"), offered("MaxConnections")), ("Normal".into(), "1".into()));
        let digest = offered("HeaderDigest");
        (self.initial_r2t, self.immediate_data) =
            (offered("InitialR2T") == "Yes", offered("ImmediateData") == "Yes");
        let answers = format!(
            "TargetPortalGroupTag=1\0HeaderDigest={digest}\0DataDigest={}\0InitialR2T={}\0ImmediateData={}\0\
             MaxRecvDataSegmentLength={SEGMENT_BYTES}\0FirstBurstLength={FIRST_BURST_BYTES}\0\
             MaxBurstLength={MAX_BURST_BYTES}\0MaxConnections=1\0ErrorRecoveryLevel=0\0",
            offered("DataDigest"),
            offered("InitialR2T"),
            offered("ImmediateData"),
        );
        // The text in two pieces, the first of which says that it goes on.
        let (first, second) = answers.as_bytes().split_at(40);
        let mut part = response;
        part[1] = 0x44;
        self.send(part, first, true)?;
        let (header, data) = self.receive()?;
        assert_eq!((header[0], header[1], data.len()), (0x43, 0x04, 0));
        self.send(response, second, true)?;
        self.digest = digest == "CRC32C";
        Ok(())
    }

    fn ping(&mut self) -> Result<(), Over> {
        let mut header = [0; 48];
        (header[0], header[1]) = (0x20, 0x80);
        put(&mut header, 16, u32::MAX);
        put(&mut header, 20, 0x1234);
        self.send(header, b"echo!", false)
    }

    fn take_pong(&self, header: &[u8; 48], data: &[u8]) {
        assert_eq!((word(header, 16), word(header, 20)), (u32::MAX, 0x1234));
        assert_eq!(data, b"echo!");
        self.shared.pongs.fetch_add(1, Ordering::Relaxed);
    }

    fn logout(&mut self, header: &[u8; 48]) -> Result<(), Over> {
        let mut response = [0; 48];
        (response[0], response[1]) = (0x26, 0x80);
        response[16..20].copy_from_slice(&header[16..20]);
        self.send(response, &[], true)?;
        self.shared.logouts.fetch_add(1, Ordering::Relaxed);
        Err(Over)
    }

    fn command(&mut self, header: &[u8; 48], data: &[u8]) -> Result<(), Over> {
        assert_eq!(word(header, 24), self.exp_cmd_sn, "CmdSN");
        self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
        let cdb = &header[32..48];
        if cdb[0] == 0 {
            if self.attentions > 0 {
                self.attentions -= 1;
                return self.check_condition(header, [6, 0x29, 0]);
            }
            return self.respond(header, 0, &[]);
        }
        if cdb[0] == 0x9E {
            let mut capacity = [0; 32];
            capacity[..8].copy_from_slice(&(BLOCKS - 1).to_be_bytes());
            capacity[8..12].copy_from_slice(&(BLOCK_BYTES as u32).to_be_bytes());
            return self.send_data(header, &capacity, Flaw::None);
        }
        self.io(header, data)
    }

    fn io(&mut self, header: &[u8; 48], data: &[u8]) -> Result<(), Over> {
        let cdb = &header[32..48];
        let (flaw, number) = (self.shared.flaw, self.shared.commands.fetch_add(1, Ordering::Relaxed) + 1);
        if flaw == Flaw::Hangs && number.is_multiple_of(50) {
            return Err(Over);
        }
        let lba = u64::from_be_bytes(*cdb[2..].first_chunk().unwrap());
        let blocks = u64::from(u32::from_be_bytes(*cdb[10..].first_chunk().unwrap()));
        if lba + blocks > BLOCKS {
            return self.check_condition(header, [5, 0x21, 0]);
        }
        let range = (lba * BLOCK_BYTES) as usize..((lba + blocks) * BLOCK_BYTES) as usize;
        match cdb[0] {
            0x88 if flaw == Flaw::AsksForLogout => self.ask_for_logout(),
            0x88 => {
                assert_eq!((header[1], word(header, 20) as usize), (0xC1, range.len()));
                let data = self.shared.disk.lock().unwrap()[range].to_vec();
                self.send_data(header, &data, flaw)
            }
            0x8A => {
                let data = self.take_data(header, data, range.len())?;
                if flaw != Flaw::LostWrite || !number.is_multiple_of(50) {
                    self.shared.disk.lock().unwrap()[range].copy_from_slice(&data);
                }
                self.respond(header, 0, &[])
            }
            0x93 => {
                let block = self.take_data(header, data, BLOCK_BYTES as usize)?;
                let mut disk = self.shared.disk.lock().unwrap();
                disk[range].chunks_mut(block.len()).for_each(|piece| piece.copy_from_slice(&block));
                drop(disk);
                self.respond(header, 0, &[])
            }
            0x91 => self.respond(header, 0, &[]),
            _ => self.check_condition(header, [5, 0x20, 0]),
        }
    }

    /// The data of a write: with the command, unasked after it, then asked for piece by piece.
    fn take_data(&mut self, header: &[u8; 48], immediate: &[u8], len: usize) -> Result<Vec<u8>, Over> {
        assert_eq!(word(header, 20) as usize, len);
        let burst = len.min(FIRST_BURST_BYTES);
        let with_command = if self.immediate_data { burst.min(SEGMENT_BYTES) } else { 0 };
        assert_eq!(immediate.len(), with_command);
        let unasked = if self.initial_r2t { with_command } else { burst };
        assert_eq!(header[1], if unasked > with_command { 0x21 } else { 0xA1 });
        let mut data = immediate.to_vec();
        self.take_sequence(header, &mut data, unasked, u32::MAX)?;
        let mut r2t_sn = 0;
        while data.len() < len {
            let wanted = (len - data.len()).min(PIECE_BYTES);
            let mut r2t = [0; 48];
            (r2t[0], r2t[1]) = (0x31, 0x80);
            r2t[16..20].copy_from_slice(&header[16..20]);
            for (at, value) in [(20, R2T_TAG), (36, r2t_sn), (40, data.len() as u32), (44, wanted as u32)] {
                put(&mut r2t, at, value);
            }
            self.send(r2t, &[], false)?;
            r2t_sn += 1;
            let end = data.len() + wanted;
            self.take_sequence(header, &mut data, end, R2T_TAG)?;
        }
        Ok(data)
    }

    /// Data-Out until `data` has `end` bytes.
    fn take_sequence(
        &mut self,
        command: &[u8; 48],
        data: &mut Vec<u8>,
        end: usize,
        tag: u32,
    ) -> Result<(), Over> {
        let mut data_sn = 0;
        while data.len() < end {
            let (header, piece) = self.next_data(command)?;
            assert_eq!((word(&header, 20), word(&header, 36)), (tag, data_sn));
            assert_eq!(word(&header, 40) as usize, data.len());
            assert!(piece.len() <= SEGMENT_BYTES);
            data.extend(piece);
            data_sn += 1;
            assert_eq!(header[1] == 0x80, data.len() == end);
        }
        Ok(())
    }

    /// The next Data-Out of `command`; what else comes meanwhile is kept.
    fn next_data(&mut self, command: &[u8; 48]) -> Result<Pdu, Over> {
        let wanted = |(header, _): &Pdu| header[0] == 0x05 && header[16..20] == command[16..20];
        if let Some(at) = self.early.iter().position(wanted) {
            return self.early.remove(at).ok_or(Over);
        }
        loop {
            let pdu = self.receive()?;
            if wanted(&pdu) {
                return Ok(pdu);
            }
            self.early.push_back(pdu);
        }
    }

    /// Sends `data` in pieces; the last says that the command succeeded.
    fn send_data(&mut self, command: &[u8; 48], data: &[u8], flaw: Flaw) -> Result<(), Over> {
        let data = if flaw == Flaw::ShortRead { &data[..data.len() / 2] } else { data };
        let pieces = data.chunks(PIECE_BYTES);
        let last = pieces.len() - 1;
        for (number, piece) in pieces.enumerate() {
            let mut header = [0; 48];
            let burst_ends = number % PIECES_OF_BURST == PIECES_OF_BURST - 1 && flaw != Flaw::LongBurst;
            (header[0], header[1]) = match number {
                _ if number == last => (0x25, 0x81),
                _ if burst_ends => (0x25, 0x80),
                _ => (0x25, 0),
            };
            header[16..20].copy_from_slice(&command[16..20]);
            put(&mut header, 20, u32::MAX);
            put(&mut header, 36, number as u32 + u32::from(flaw == Flaw::WrongDataSn));
            put(&mut header, 40, (number * PIECE_BYTES) as u32);
            self.stat_sn = self.stat_sn.wrapping_add(u32::from(flaw == Flaw::WrongStatSn));
            self.send(header, piece, number == last)?;
        }
        if flaw == Flaw::CompletesTwice { self.respond(command, 0, &[]) } else { Ok(()) }
    }

    fn check_condition(&mut self, command: &[u8; 48], [key, asc, ascq]: [u8; 3]) -> Result<(), Over> {
        let mut sense = [0; 20];
        (sense[1], sense[2], sense[4], sense[9]) = (18, 0x70, key, 10);
        (sense[14], sense[15]) = (asc, ascq);
        self.respond(command, 2, &sense)
    }

    fn respond(&mut self, command: &[u8; 48], status: u8, sense: &[u8]) -> Result<(), Over> {
        let mut header = [0; 48];
        (header[0], header[1], header[3]) = (0x21, 0x80, status);
        header[16..20].copy_from_slice(&command[16..20]);
        self.send(header, sense, true)
    }

    fn ask_for_logout(&mut self) -> Result<(), Over> {
        let mut header = [0; 48];
        (header[0], header[1], header[36]) = (0x32, 0x80, 1);
        put(&mut header, 16, u32::MAX);
        self.send(header, &[], true)
    }
}
