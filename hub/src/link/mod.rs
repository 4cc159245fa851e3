pub mod ask;
pub mod downlinks;
pub mod driver;
pub mod frames;
pub mod handshake;
pub mod judge;
pub mod outbound;
pub mod pipe;
pub mod sender;
#[cfg(test)]
mod simulation;
pub mod uplink;
pub mod view;
