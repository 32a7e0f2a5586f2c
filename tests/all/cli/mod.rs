//! The binary from the outside: what it promises, one property a test, with real CadQuery.

mod algorithms;
mod bad_input;
mod configs;
mod data;
mod hub;
mod model;
mod recovery;
mod run;
mod tools;
mod toy;
