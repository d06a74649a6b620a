//! The log: by itself, under faults, and on chunk stores.

mod disks;
mod faults;
mod plain;
mod support;
