//! The application through HTTP, as a visitor and an operator meet it. Needs no cluster: a plain file stands for the
//! database.

mod clicks;
mod copies;
mod doctor;
mod events;
mod helpers;
mod keys;
mod litefs;
mod metrics;
mod pages;
mod process;
mod refusals;
mod roles;
mod status;
