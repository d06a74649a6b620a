//! The SCSI device server against volumes in memory.

mod attentions;
mod blocks;
mod model;
mod modes;
mod properties;
mod reports;
mod same;
mod world;
