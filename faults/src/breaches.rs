//! The application with one protection taken out, which has to fail: otherwise the suite sees nothing.
