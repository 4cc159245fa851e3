//! The binary: decides and answers.

pub mod demo;
pub mod mqtt_publisher;
pub mod replay;
