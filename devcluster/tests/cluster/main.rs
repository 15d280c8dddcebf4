//! The application on four LiteFS nodes in three regions, as its visitors and its operator meet it. Needs root.

mod alone;
mod copies;
mod doctor;
mod hostile;
mod launch;
mod migrations;
mod outages;
mod s3;
mod second_app;
mod status;
mod streams;
mod supervision;
mod support;
mod visitors;
mod writes;
