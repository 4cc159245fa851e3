//! Codes of a report that ends a node, for whoever started it.

use citybrain_shared::words::with_causes;
use miette::miette;

/// Somebody else has what the node needs, the folder or a port, and may let go of it.
pub const BUSY: &str = "busy";
/// What the config names cannot be used, and trying again changes nothing.
pub const UNUSABLE: &str = "unusable";

pub fn coded(code: &str, error: &dyn std::error::Error) -> miette::Report {
    miette!(code = code, "{}", with_causes(error))
}

/// What the config names, read.
///
/// # Errors
/// [`UNUSABLE`]
pub fn usable<T, E: std::error::Error>(read: Result<T, E>) -> miette::Result<T> {
    read.map_err(|e| coded(UNUSABLE, &e))
}
