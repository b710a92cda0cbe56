//! The test bench: a small machine around the shadow MMU, a naive twin of it, and the properties they must share.

mod breaks;
mod cpu;
mod differential;
mod gap;
mod huge;
mod long;
mod machine;
mod memory;
mod pae;
mod path;
mod permissions;
mod races;
mod reference;
mod scenarios;
mod spaces;
mod straight;
mod switches;
mod tables;
mod unsync;
mod vtlb;
mod window;
