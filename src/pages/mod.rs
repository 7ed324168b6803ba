//! Pages beside the reference.

#[doc = include_str!("simulation.md")]
pub mod simulation {}

#[doc = include_str!("speed.md")]
pub mod speed {}
