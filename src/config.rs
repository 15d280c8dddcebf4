//! What the application is told at start, by flags or by the environment. `--help` is written from here.

use std::{env, ffi::OsStr, net::IpAddr, path::PathBuf, time::Duration};

use clap::{Arg, CommandFactory, Parser, Subcommand, error::ErrorKind};
use tracing_subscriber::EnvFilter;

use crate::{
    counter::{self, Keep},
    instance::{AppName, ConsulKey, InstanceId, LiteFs, Policy, Region, Settings},
};

/// A counter on SQLite, replicated to many regions by LiteFS.
///
/// Each option can be given as a flag or by the environment variable of the name in angle brackets.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Config {
    /// Without one, the application is served
    #[command(subcommand)]
    pub command: Option<Command>,

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

    /// Consul, which holds LiteFS's lease; set by `fly consul attach`
    #[arg(long, env, value_name = "FLY_CONSUL_URL", hide_env = true, hide_env_values = true)]
    pub fly_consul_url: Option<String>,

    /// The lease's key, as `consul.key` in litefs.yml. Not set: `litefs/FLY_APP_NAME`
    #[arg(long, env, value_name = "CONSUL_KEY", hide_env = true)]
    pub consul_key: Option<String>,

    /// When a click is acknowledged with LiteFS: `available`, once every other candidate that is up has it; `strict`, never
    /// without another candidate; `off`, when it is committed here
    #[arg(long, env, value_name = "CONFIRM_WRITES", default_value = "available", hide_env = true, value_parser = policy)]
    pub confirm_writes: Policy,

    /// For how many hours a click is known by its key
    #[arg(long, env, value_name = "KEY_HOURS", default_value = "24", hide_env = true, value_parser = hours)]
    pub key_hours: u32,

    /// How many keys are kept at most; clicks with new ones are refused where all are younger than ten minutes
    #[arg(long, env, value_name = "KEY_LIMIT", default_value = "1000000", hide_env = true, value_parser = limit)]
    pub key_limit: u64,

    /// HOST:PORT of a second listener, for what only the private network may reach: /healthcheck, /handover, /hold, /instance, /metrics. Not set: none
    #[arg(long, env, value_name = "PRIVATE_ADDR", hide_env = true, value_parser = host_and_port)]
    pub private_addr: Option<String>,

    /// What is logged: a level, or levels by module, such as `info,litefs_counter=debug`
    #[arg(long = "log", env = "RUST_LOG", value_name = "RUST_LOG", hide_env = true)]
    #[arg(default_value = "info", value_parser = log_filter)]
    pub log: String,
}

/// What else the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Has another candidate become primary, and stops nothing. To be run on any instance's machine
    Handover {
        /// The instance that is to take over. Not given: any candidate that has all transactions
        #[arg(long, value_name = "INSTANCE")]
        to: Option<InstanceId>,
    },
    /// Writes the database into FILE, on any instance, while clicks go on
    Backup {
        /// It must not be there yet
        file: PathBuf,
    },
    /// Replaces the database by a backup, and keeps the old one beside FILE. To be run on the primary's machine; without
    /// LiteFS, with the application stopped
    Restore {
        /// A backup of this application's, of this version or an earlier one
        file: PathBuf,
        /// All nodes have lost their data: forgets the old cluster, once none is found to have it. To be run on a candidate
        #[arg(long)]
        data_is_lost: bool,
        /// An instance that need not be asked, its data being gone
        #[arg(long, value_name = "INSTANCE", requires = "data_is_lost")]
        without: Vec<InstanceId>,
    },
    /// Says what is wrong with a deployment, why, and what to do about it. Ends with 0 (nothing), 1 (something), or 2 (it could
    /// not be examined). Takes what `fly machines list --json`, `fly volumes list --json` and `fly secrets list --json` print,
    /// any of them, on standard input
    Doctor {
        /// Where litefs.yml, fly.toml and Dockerfile are. On a machine on Fly: litefs.yml alone, or /etc/litefs.yml
        #[arg(value_name = "DIR", default_value = ".")]
        dir: PathBuf,
        /// Where the application runs, as visitors reach it. Nothing is changed there
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        /// Prints it for programs
        #[arg(long)]
        json: bool,
    },
    /// Starts LiteFS, which starts the application, and releases its lease if it dies. To be the machine's main process
    #[cfg(target_os = "linux")]
    Launch {
        /// What is started, in place of `litefs mount`
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<std::ffi::OsString>,
    },
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
        // What it would find is for the doctor to tell.
        let is_examined = matches!(config.command, Some(Command::Doctor { .. }));
        if let Err(message) = config.check()
            && !is_examined
        {
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
        if self.fly_consul_url.as_ref().is_some_and(|url| consul_url(url).is_none()) {
            // Without the value, whose password is a token; clap would show it.
            return Err(
                "invalid value for FLY_CONSUL_URL: expected http(s)://:TOKEN@HOST:PORT/PREFIX".to_owned()
            );
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
        if self.confirm_writes != Policy::Off {
            for (name, is_set) in [
                ("FLY_APP_NAME", self.fly_app_name.is_some()),
                ("FLY_CONSUL_URL", self.fly_consul_url.is_some()),
            ] {
                if !is_set {
                    return Err(format!(
                        "{name} is not set, and LITEFS_DIR is: without it no click can be confirmed. Expected what Fly \
                         sets (FLY_CONSUL_URL: `fly consul attach`), or CONFIRM_WRITES=off"
                    ));
                }
            }
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
                consul: self.consul(),
            }),
        }
    }

    fn consul(&self) -> Option<ConsulKey> {
        let app = self.fly_app_name.as_ref();
        let key = self.consul_key.clone().or_else(|| Some(format!("litefs/{}", app?)))?;
        Some(ConsulKey { url: consul_url(self.fly_consul_url.as_ref()?)?, key })
    }

    /// What the counter is told.
    #[must_use]
    pub fn counter(&self) -> counter::Settings {
        let age = Duration::from_hours(self.key_hours.into());
        counter::Settings {
            database: self.database.clone(),
            confirm: self.confirm_writes,
            keep: Keep { age, most: self.key_limit },
        }
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

fn consul_url(url: &str) -> Option<reqwest::Url> {
    reqwest::Url::parse(url).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().or(url.fragment()).is_none()
    })
}

fn policy(name: &str) -> Result<Policy, String> {
    match name {
        "available" => Ok(Policy::Available),
        "strict" => Ok(Policy::Strict),
        "off" => Ok(Policy::Off),
        _ => Err("expected available, strict or off".to_owned()),
    }
}

fn hours(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|hours| *hours > 0)
        .ok_or_else(|| "expected a whole number of hours, at least 1".to_owned())
}

fn limit(text: &str) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|limit| *limit > 0)
        .ok_or_else(|| "expected a number of keys, at least 1".to_owned())
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
