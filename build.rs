//! `sqlx::migrate!` reads the migrations when it is compiled; only this makes Cargo notice a new file.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
