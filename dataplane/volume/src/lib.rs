//! Volumes: pass-through, and a volume that lives on another reactor.
