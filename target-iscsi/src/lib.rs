//! The iSCSI target: RFC 7143 in front, a SCSI device server (SPC-4, SBC-3) behind, volumes below.
//!
//! The layers know each other from the outside in: `server` moves bytes between sockets, the session and the
//! device server; [`scsi`] turns a command into an operation of a volume and its outcome into status and sense;
//! [`view`] is the configuration all of them see.
//!
//! **Architecture invariant:** nothing here makes a system call; sockets, time and randomness come from
//! `ashlar-env`. Session and device server do no I/O at all.

pub mod limits;
pub mod login;
pub mod scsi;
pub mod server;
pub mod session;
pub mod view;
pub mod wire;

// What the tests beside this crate share with those in it names it from outside.
#[cfg(test)]
extern crate self as ashlar_iscsi;
