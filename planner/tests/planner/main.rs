//! The planners, the bounds and both simulations, over drawn problems and over real workflows.

mod branches;
mod carried_out;
mod chances;
mod decided;
mod drafts;
mod drawn;
mod fresh;
mod fronts;
mod graphs;
mod hints;
mod instances;
mod lives;
mod optimised;
mod passes;
mod pools;
mod properties;
mod recorded;
mod replanned;
mod shapes;
mod widths;
mod wukong;
