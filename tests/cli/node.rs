//! Running the binary, and the stand-in for a node that answers it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;

pub fn ashlar(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ashlar"));
    command.args(arguments).env_remove("ASHLAR_API").stdin(Stdio::null());
    command
}

/// Runs to the end and checks the exit code, and that no run ever shows Rust's innards.
pub fn run(mut command: Command, code: i32) -> (String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(status.code(), Some(code), "{command:?}\n{stdout}{stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("backtrace"), "{stderr}");
    (stdout, stderr)
}

/// A request as the stand-in saw it: the first line without the version, and the body.
pub type Seen = (String, Value);

/// A stand-in for a node.
pub struct Node {
    pub address: String,
    thread: JoinHandle<Vec<Seen>>,
}

impl Node {
    /// Answers one request for each reply, in turn.
    pub fn new(replies: Vec<(u16, Value)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serve = move || replies.into_iter().map_while(|reply| answer(&listener, reply)).collect();
        Self { address, thread: std::thread::spawn(serve) }
    }

    /// What it was asked. Ends it also when fewer requests came than there are replies.
    pub fn seen(self) -> Vec<Seen> {
        // A connection without a request: nobody will ask any more.
        drop(TcpStream::connect(&self.address));
        self.thread.join().unwrap()
    }
}

/// `None` when a connection ends without a request.
fn answer(listener: &TcpListener, (status, body): (u16, Value)) -> Option<Seen> {
    let (mut stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let first = line();
    if first.is_empty() {
        return None;
    }
    let mut length = 0;
    loop {
        let header = line().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut request = vec![0; length];
    reader.read_exact(&mut request).unwrap();
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).unwrap();
    let request = if request.is_empty() { Value::Null } else { serde_json::from_slice(&request).unwrap() };
    Some((first.trim_end_matches(" HTTP/1.1").to_owned(), request))
}

/// Runs a command against a node with these replies; yields both streams and what the node saw.
pub fn run_with(arguments: &[&str], replies: Vec<(u16, Value)>, code: i32) -> (String, String, Vec<Seen>) {
    let node = Node::new(replies);
    let mut command = ashlar(arguments);
    command.env("ASHLAR_API", &node.address);
    let (stdout, stderr) = run(command, code);
    (stdout, stderr, node.seen())
}
