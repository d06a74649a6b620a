//! Looking at a store from outside: verifying it end to end, and printing what is on a device.
//!
//! **Nothing here writes to a device.** [`check`] opens devices through an [`Overlay`], which keeps in memory what the
//! engine writes when it recovers a group: so a stopped store is verified by the very code that would start it, and
//! stays as it is to the byte. [`dump`] only reads.
//!
//! *What is verified.* Both superblocks, both copies of every fence page and slot header; every record, batch and
//! checkpoint of every chunk with all its checksums, whether or not anybody needs it still ([`scan`]); then each group is
//! recovered, and every page and block that a volume or a snapshot holds is read through its map.

pub mod check;
pub mod dump;
mod overlay;
pub mod scan;

pub use check::{DeviceCheck, Found, GroupCheck, StoreCheck, check};
pub use dump::{DumpError, What, dump};
pub use overlay::Overlay;
