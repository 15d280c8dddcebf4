//! The pages of the application alone, in Chromium.

mod clicks;
mod network;
mod quality;
mod status;
mod without_script;
