//! The protocol explored: the machines of this folder on a bucket of sets, in
//! every interleaving, with crashes, stalls, fences at any time, lost
//! acknowledgements, and requests that land again long after they were sent.
//!
//! Every listing and every object is a step of its own. What is not modelled:
//! listings that return pages apart from one another (each listing here is one
//! step), and unreadable records (the engine refuses to collect then).

mod actors;
mod bucket;
mod explore;
mod mutants;
mod world;

mod tests;
