pub mod handshake;
pub mod judge;
pub mod sender;
#[cfg(test)]
mod simulation;
