//! A lane on a chunk store on the simulator's disk: volumes are linearizable registers, through crashes; snapshots stay
//! what they were; and at every rest the lane's own verification finds nothing.

mod acts;
mod copies;
mod crash;
mod disk;
mod faults;
mod host;
mod kept;
mod planted;
mod random;
mod replicas;
mod rules;
mod several;
mod space;
mod world;
