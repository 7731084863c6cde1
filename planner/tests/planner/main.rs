//! The planners, the bounds and both simulations, over drawn problems and over real workflows.

mod drawn;
mod graphs;
mod properties;
mod recorded;
mod shapes;
