//! The memory of I/O buffers: a slab for each reactor, from hugepages where the host has them.

use std::io;

use ashlar_env::buf::{ALIGN_BYTES, Page};

use crate::ring::SlabRange;
use crate::sys;

const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A mapping that lives as long as the process.
pub(crate) struct Slab {
    /// The memory.
    pub(crate) pages: &'static mut [Page],
    /// Whether it lies in hugepages.
    pub(crate) huge: bool,
}

impl Slab {
    /// Where it lies.
    pub(crate) fn range(&self) -> SlabRange {
        SlabRange { address: self.pages.as_ptr().expose_provenance(), bytes: size_of_val(self.pages) }
    }
}

/// Maps `bytes` (rounded up), from hugepages if there are enough of them, else from ordinary pages that the
/// kernel provides when they are first touched.
pub(crate) fn map(bytes: usize) -> io::Result<Slab> {
    let huge_bytes = bytes.next_multiple_of(HUGE_PAGE_BYTES);
    if let Ok(pages) = sys::map_pages(huge_bytes / ALIGN_BYTES, true) {
        return Ok(Slab { pages, huge: true });
    }
    Ok(Slab { pages: sys::map_pages(bytes.div_ceil(ALIGN_BYTES), false)?, huge: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_makes_a_pool() {
        let plan = ashlar_env::buf::PoolPlan::for_bytes(1 << 20);
        let slab = map(plan.total_bytes()).unwrap();
        assert!(slab.pages.len() * ALIGN_BYTES >= plan.total_bytes());
        let pool = ashlar_env::BufPool::on_slab(plan, slab.pages, 3);
        let buf = pool.try_alloc(1 << 20).unwrap();
        assert_eq!(buf.slab(), Some(3));
        assert!(buf.iter().all(|&byte| byte == 0));
    }
}
