//! Pages beside the reference.

#[doc = include_str!("simulation.md")]
pub mod simulation {}
