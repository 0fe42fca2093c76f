//! Documents from outside: the golden vectors, attacks, and what a checked policy says.

mod attacks;
mod golden;
mod values;
