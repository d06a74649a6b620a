//! The environment: what the data path may know of the world.
