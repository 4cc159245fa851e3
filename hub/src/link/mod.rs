pub mod frames;
pub mod handshake;
pub mod judge;
pub mod pipe;
pub mod sender;
#[cfg(test)]
mod simulation;
