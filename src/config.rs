//! What the application is told at start, by flags or by the environment. `--help` is written from here.

use std::{env, ffi::OsStr, net::IpAddr, path::PathBuf};

use clap::{Arg, CommandFactory, Parser, error::ErrorKind};
use tracing_subscriber::EnvFilter;

use crate::{
    counter::Database,
    instance::{AppName, InstanceId, LiteFs, Region, Settings},
};

/// A counter on SQLite, replicated to many regions by LiteFS.
///
/// Each option can be given as a flag or by the environment variable of the name in angle brackets.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Config {
    /// Port of the pages. LiteFS's proxy stands before it: do not expose it beside the proxy's
    #[arg(long, env, value_name = "PORT", default_value = "8081", hide_env = true, value_parser = port)]
    pub port: u16,

    /// Address on which the pages are served
    #[arg(long, env, value_name = "HOST", default_value = "127.0.0.1", hide_env = true, value_parser = host)]
    pub host: IpAddr,

    /// The database, as `sqlite://PATH`. Standalone it is created with its folder; with LiteFS it lies in `LITEFS_DIR`
    #[arg(long = "database-url", env = "DATABASE_URL", value_name = "DATABASE_URL", hide_env = true)]
    #[arg(default_value = "sqlite://data/sqlite.db", value_parser = database_path)]
    pub database: PathBuf,

    /// The directory that LiteFS mounts. Not set: standalone, with a plain file
    #[arg(long, env, value_name = "LITEFS_DIR", hide_env = true, value_parser = directory)]
    pub litefs_dir: Option<PathBuf>,

    /// LiteFS's API on this machine
    #[arg(long, env, value_name = "LITEFS_URL", hide_env = true)]
    #[arg(default_value = "http://localhost:20202", value_parser = http_url)]
    pub litefs_url: String,

    /// The region that this instance runs in; set by Fly
    #[arg(long, env, value_name = "FLY_REGION", default_value = "local", hide_env = true)]
    pub fly_region: Region,

    /// This instance's id, which is its host name; set by Fly, needed with LiteFS
    #[arg(long, env, value_name = "FLY_MACHINE_ID", hide_env = true)]
    pub fly_machine_id: Option<InstanceId>,

    /// The application's name in Fly's private DNS; set by Fly
    #[arg(long, env, value_name = "FLY_APP_NAME", hide_env = true)]
    pub fly_app_name: Option<AppName>,

    /// The region in which instances can become primary; set by Fly from fly.toml
    #[arg(long, env, value_name = "PRIMARY_REGION", hide_env = true)]
    pub primary_region: Option<Region>,

    /// HOST:PORT of a second listener, for what only the private network may see (now: /healthcheck). Not set: none
    #[arg(long, env, value_name = "PRIVATE_ADDR", hide_env = true, value_parser = host_and_port)]
    pub private_addr: Option<String>,

    /// What is logged: a level, or levels by module, such as `info,litefs_counter=debug`
    #[arg(long = "log", env = "RUST_LOG", value_name = "RUST_LOG", hide_env = true)]
    #[arg(default_value = "info", value_parser = log_filter)]
    pub log: String,
}

impl Config {
    /// Reads flags and environment. Where something is wrong, says which variable and what was expected, and ends
    /// the process with status 2.
    #[must_use]
    pub fn read() -> Self {
        let refuse =
            |message: String| -> ! { Self::command().error(ErrorKind::ValueValidation, message).exit() };
        let is_text = |name: &OsStr| env::var_os(name).is_none_or(|value| value.to_str().is_some());
        // Clap alone would not say which one it is.
        if let Some(name) =
            Self::command().get_arguments().filter_map(Arg::get_env).find(|name| !is_text(name))
        {
            refuse(format!("invalid value for {}: expected text in UTF-8", name.display()));
        }
        let config = Self::parse();
        if let Err(message) = config.check() {
            refuse(message);
        }
        config
    }

    /// What one option alone cannot tell.
    fn check(&self) -> Result<(), String> {
        if self.database.is_dir() {
            let path = self.database.display();
            return Err(format!("DATABASE_URL is sqlite://{path}, a directory: expected the path of a file"));
        }
        let Some(dir) = &self.litefs_dir else { return Ok(()) };
        if self.fly_machine_id.is_none() {
            return Err(
                "FLY_MACHINE_ID is not set, and LITEFS_DIR is: expected the host name under which LiteFS \
                        holds its lease"
                    .to_owned(),
            );
        }
        if self.database.parent() != Some(dir) {
            return Err(format!(
                "DATABASE_URL is sqlite://{}, which is not in LITEFS_DIR ({dir}): LiteFS would not replicate it. \
                 Expected sqlite://{dir}/FILE",
                self.database.display(),
                dir = dir.display()
            ));
        }
        Ok(())
    }

    /// What the instance module is told.
    #[must_use]
    pub fn instance(&self) -> Settings {
        let standalone = || "local".parse().expect("a name of letters");
        let file = self.database.file_name().unwrap_or_default();
        Settings {
            id: self.fly_machine_id.clone().unwrap_or_else(standalone),
            region: self.fly_region.clone(),
            app: self.fly_app_name.clone(),
            primary_region: self.primary_region.clone(),
            litefs: self.litefs_dir.clone().map(|dir| LiteFs {
                dir,
                database: file.to_string_lossy().into_owned(),
                url: self.litefs_url.clone(),
            }),
        }
    }

    /// Where the database is.
    #[must_use]
    pub fn database(&self) -> Database {
        Database { file: self.database.clone() }
    }
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "expected a port, from 0 (any free one) to 65535".to_owned())
}

fn host(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "expected an IP address, such as 127.0.0.1 or ::".to_owned())
}

fn database_path(url: &str) -> Result<PathBuf, String> {
    let path = url.strip_prefix("sqlite://").filter(|path| !path.contains('?') && !path.contains(":memory:"));
    path.map(PathBuf::from)
        .filter(|path| path.file_name().is_some())
        .ok_or_else(|| "expected sqlite://PATH with the path of a file, and no options".to_owned())
}

fn directory(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    if path.is_absolute() { Ok(path) } else { Err("expected an absolute path, such as /litefs".to_owned()) }
}

fn http_url(url: &str) -> Result<String, String> {
    let valid = reqwest::Url::parse(url).is_ok_and(|url| {
        url.scheme() == "http" && url.has_host() && url.query().or(url.fragment()).is_none()
    });
    if valid { Ok(url.trim_end_matches('/').to_owned()) } else { Err("expected http://HOST:PORT".to_owned()) }
}

fn host_and_port(address: &str) -> Result<String, String> {
    let valid =
        address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if valid { Ok(address.to_owned()) } else { Err("expected HOST:PORT, such as [::]:8082".to_owned()) }
}

fn log_filter(filter: &str) -> Result<String, String> {
    let expected = "expected a level (error, warn, info, debug, trace) or module=level,…";
    match EnvFilter::builder().parse(filter) {
        Ok(_) if !filter.is_empty() => Ok(filter.to_owned()),
        Ok(_) => Err(expected.to_owned()),
        Err(error) => Err(format!("{error}; {expected}")),
    }
}
