//! The TOML file of a node: schema, defaults and validation.
//!
//! One file describes one node. Every key is optional, so an empty file is valid and means
//! [`Config::default`]. A file that says something this version does not understand is refused as a
//! whole: unknown keys, wrong types and impossible values are reported together, each with its line,
//! its column, the line itself and the nearest right key.
//!
//! ```
//! let config = ashlar_config::Config::parse("node.toml", "[memory]\nbuffers = \"1GiB\"\n").unwrap();
//! assert_eq!(config.memory.buffers.get(), 1 << 30);
//!
//! let refused = ashlar_config::Config::parse("node.toml", "[memory]\nbufers = \"1GiB\"\n").unwrap_err();
//! assert!(refused.to_string().contains("did you mean `buffers`?"));
//! ```
//!
//! The crate also owns the two units that people type, sizes ([`Bytes`]) and durations ([`duration`]),
//! so that the file and the command line read them alike.

mod cores;
mod decimal;
mod device;
mod diagnostic;
pub mod duration;
mod keys;
mod load;
mod nearest;
mod read;
mod schema;
mod section;
mod size;
mod validate;
mod value;

pub use cores::{Cores, CoresError};
pub use device::Device;
pub use diagnostic::{ConfigError, Diagnostic};
pub use load::LoadError;
pub use nearest::nearest;
pub use schema::{
    Api, Config, Iscsi, IscsiLimits, Limits, Log, LogFormat, LogLevel, Memory, Node, Nvmeof, Reactors, Scrub,
    Spin,
};
pub use size::{Bytes, ParseBytesError};

/// The whole schema as a commented TOML file, as `ashlar config defaults` prints it.
///
/// It parses to [`Config::default`]. Keys that have no default stand in it as comments.
pub const DEFAULTS: &str = include_str!("defaults.toml");
