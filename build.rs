//! What is compiled into the program besides its source: static files, compressed, and migrations.

fn main() {
    // `sqlx::migrate!` reads them when it is compiled; only this makes Cargo notice a new file.
    println!("cargo:rerun-if-changed=migrations");
    memory_serve::load_directory("static");
}
