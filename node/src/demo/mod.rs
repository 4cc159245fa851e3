//! soon
pub mod chengdu;
pub mod data;
pub mod generate;
pub mod tree;
