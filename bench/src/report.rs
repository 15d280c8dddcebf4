//! The figures as Markdown, with their plots, and what is to be reached.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

use crate::{
    chart::{self, Group, thousands},
    idle::Idle,
    keys::Keys,
    load::Workload,
    measure::{Cell, Figures, Table},
    server::{BARE, OURS, PLAIN, UNCONFIRMED},
    site::Place,
    soak::Soak,
};

/// The plain handler's share of the bare one's requests on LiteFS, with 64 connections, as it was first measured. One
/// that does much worse would flatter the application.
const PLAIN_GET: f64 = 8_900.0 / 88_000.0;
const PLAIN_POST: f64 = 325.0 / 81_000.0;
/// How much worse it may do.
const TOLERANCE: f64 = 0.8;

/// With how many connections servers are compared.
const TYPICAL: u32 = 64;

/// All that was measured.
pub struct Report {
    pub machine: String,
    pub table: Table,
    pub idle: Vec<Idle>,
    pub keys: Option<Keys>,
    /// Who could not run here, and why.
    pub missing: Vec<String>,
    /// `litefs-counter` keeps to the end whether it was built for speed.
    pub conditions: String,
}

impl Report {
    /// Fails where the handler that the application is compared with does worse than it should.
    pub fn check(&self) -> Result<()> {
        for (workload, share) in [(Workload::Get, PLAIN_GET), (Workload::Post, PLAIN_POST)] {
            let rate = |server| self.rate(Place::Primary, workload, TYPICAL, server);
            let Some((plain, bare)) = rate(PLAIN).zip(rate(BARE)) else { continue };
            ensure!(
                plain / bare >= share * TOLERANCE,
                "{}: the plain handler reaches {:.4} of the bare one, and should reach {share:.4}: comparing with \
                 it would prove nothing",
                workload.name(),
                plain / bare
            );
        }
        Ok(())
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("Measured on: {} {}\n\n", self.machine, self.conditions);
        for reason in &self.missing {
            let _ = writeln!(text, "Not measured here: {reason}\n");
        }
        text += &self.targets();
        text += "\nRequests per second with 64 connections:\n\n\
                 ![GET](images/bench-get.svg)\n\n![POST](images/bench-post.svg)\n\n";
        text += &self.typical();
        text += &self.starts();
        text += &self.stored_keys();
        text += &self.everything();
        text
    }

    /// File names and SVG.
    pub fn plots(&self) -> [(&'static str, String); 2] {
        let groups = |workload| {
            Place::ALL.into_iter().filter_map(move |place| self.group(place, workload)).collect::<Vec<_>>()
        };
        [
            ("bench-get.svg", chart::bars("GET, requests per second", &groups(Workload::Get))),
            ("bench-post.svg", chart::bars("POST, clicks per second", &groups(Workload::Post))),
        ]
    }

    fn group(&self, place: Place, workload: Workload) -> Option<Group> {
        let connections = self.typical_connections();
        let servers = self.servers();
        let bars: Vec<(String, usize, f64)> = servers
            .iter()
            .enumerate()
            .filter_map(|(colour, server)| {
                Some(((*server).to_owned(), colour, self.rate(place, workload, connections, server)?))
            })
            .collect();
        (!bars.is_empty()).then(|| Group { name: place.name().to_owned(), bars })
    }

    /// Ours first, the bare one next.
    fn servers(&self) -> Vec<&'static str> {
        let mut servers = vec![OURS, BARE, PLAIN];
        for cell in self.table.keys() {
            if !servers.contains(&cell.server) {
                servers.push(cell.server);
            }
        }
        servers
    }

    fn typical_connections(&self) -> u32 {
        let mut all: Vec<u32> = self.table.keys().map(|cell| cell.connections).collect();
        all.dedup();
        if all.contains(&TYPICAL) { TYPICAL } else { all.first().copied().unwrap_or(TYPICAL) }
    }

    fn figures(&self, place: Place, workload: Workload, connections: u32, server: &str) -> Option<&Figures> {
        let is_it = |cell: &Cell| {
            (cell.place, cell.workload, cell.connections) == (place, workload, connections)
                && cell.server == server
        };
        self.table.iter().find(|(cell, _)| is_it(cell)).map(|(_, figures)| figures)
    }

    fn rate(&self, place: Place, workload: Workload, connections: u32, server: &str) -> Option<f64> {
        self.figures(place, workload, connections, server).map(|figures| figures.rate)
    }

    fn targets(&self) -> String {
        let mut text = "| aim | figure | reached |\n| --- | ---: | --- |\n".to_owned();
        let mut line = |aim: &str, figure: Option<f64>, limit: f64, unit: &str, more_is_better: bool| {
            let Some(figure) = figure else { return };
            let reached = if more_is_better { figure >= limit } else { figure <= limit };
            let reached = if reached { "yes" } else { "**no**" };
            let _ = writeln!(text, "| {aim} | {figure:.2}{unit} | {reached} |");
        };
        use Place::{PlainFile, Primary, Proxy};
        use Workload::{Get, Post, PostKeyed};
        let ratio = |place, workload, ours, to_workload, other| {
            let ours = self.rate(place, workload, TYPICAL, ours)?;
            Some(ours / self.rate(place, to_workload, TYPICAL, other)?)
        };
        line(
            "GET on LiteFS: at least 0.85 of the bare handler",
            ratio(Primary, Get, OURS, Get, BARE),
            0.85,
            "",
            true,
        );
        line(
            "GET on LiteFS: at least 6 times the plain one",
            ratio(Primary, Get, OURS, Get, PLAIN),
            6.0,
            "",
            true,
        );
        let aim = "POST on LiteFS, confirmation off: at least 40 times the plain one";
        line(aim, ratio(Primary, Post, UNCONFIRMED, Post, PLAIN), 40.0, "", true);
        let aim = "POST on LiteFS, new key, confirmed: at least 30 times the plain one";
        line(aim, ratio(Primary, PostKeyed, OURS, Post, PLAIN), 30.0, "", true);
        line(
            "POST on a plain file: at least 0.6 of the bare one",
            ratio(PlainFile, Post, OURS, Post, BARE),
            0.6,
            "",
            true,
        );
        line(
            "GET behind the proxy: at least 0.9 of the bare one",
            ratio(Proxy, Get, OURS, Get, BARE),
            0.9,
            "",
            true,
        );
        line(
            "POST behind the proxy: at least 0.7 of the bare one",
            ratio(Proxy, Post, OURS, Post, BARE),
            0.7,
            "",
            true,
        );
        // The plain handler does nothing but commit: its lone click is what a commit takes.
        let commit = self.figures(Primary, Post, 1, PLAIN).map(|figures| figures.median);
        let lone = self.figures(Primary, Post, 1, UNCONFIRMED).map(|figures| figures.median);
        let aim = "a lone click, confirmation off: at most 1.2 commits (the plain one's click)";
        line(aim, lone.zip(commit).map(|(lone, commit)| lone / commit), 1.2, "", false);
        let p99 = self.figures(Primary, Post, TYPICAL, OURS).map(|figures| figures.p99);
        let aim = "POST on LiteFS: 99th percentile at most 4 commits";
        line(aim, p99.zip(commit).map(|(p99, commit)| p99 / commit), 4.0, "", false);
        let ours = self.idle.iter().find(|idle| idle.server == OURS);
        line("memory, idle: under 20 MiB", ours.map(|idle| idle.memory), 20.0, " MiB", false);
        let crowded = self.table.iter().filter(|(cell, _)| cell.server == OURS && cell.connections == 1000);
        let crowded = crowded.map(|(_, figures)| figures.memory).reduce(f64::max);
        line("memory, 1,000 connections: under 60 MiB", crowded, 60.0, " MiB", false);
        line(
            "first answer, plain file: under 100 ms",
            ours.map(|idle| idle.first_answer),
            100.0,
            " ms",
            false,
        );
        text
    }

    /// Servers beside each other.
    fn typical(&self) -> String {
        let connections = self.typical_connections();
        let mut text = String::new();
        for workload in [Workload::Get, Workload::Post, Workload::PostKeyed, Workload::PostRandom] {
            let _ = write!(text, "\n{}, {connections} connections:\n\n| |", workload.name());
            let places: Vec<Place> =
                Place::ALL.into_iter().filter(|place| self.has(*place, workload)).collect();
            for place in &places {
                let _ = write!(text, " {} | of bare | × plain |", place.name());
            }
            let _ = writeln!(text, "\n| --- |{}", " ---: | ---: | ---: |".repeat(places.len()));
            for server in self.servers() {
                let rates: Vec<Option<f64>> =
                    places.iter().map(|place| self.rate(*place, workload, connections, server)).collect();
                if rates.iter().all(Option::is_none) {
                    continue;
                }
                let _ = write!(text, "| {server} |");
                for (place, rate) in places.iter().zip(rates) {
                    // Only ours knows keys: others are compared by what they can.
                    let other = if workload == Workload::Get { Workload::Get } else { Workload::Post };
                    let share =
                        |other_server| Some(rate? / self.rate(*place, other, connections, other_server)?);
                    let cell = |figure: Option<String>| figure.unwrap_or_else(|| "–".to_owned());
                    let _ = write!(
                        text,
                        " {} | {} | {} |",
                        cell(rate.map(thousands)),
                        cell(share(BARE).map(|share| format!("{share:.3}"))),
                        cell(share(PLAIN).map(|share| format!("{share:.1}")))
                    );
                }
                text.push('\n');
            }
        }
        text
    }

    fn has(&self, place: Place, workload: Workload) -> bool {
        self.table.keys().any(|cell| cell.place == place && cell.workload == workload)
    }

    fn starts(&self) -> String {
        let mut text =
            "\n| plain file | first answer | memory, idle | program |\n| --- | ---: | ---: | ---: |\n"
                .to_owned();
        for Idle { server, first_answer, memory, binary } in &self.idle {
            let binary = binary.map_or("–".to_owned(), |size| format!("{size:.1} MiB"));
            let _ = writeln!(text, "| {server} | {first_answer:.0} ms | {memory:.1} MiB | {binary} |");
        }
        text
    }

    fn stored_keys(&self) -> String {
        let Some(Keys { stored, before, after }) = &self.keys else {
            return "\nKeys: this build of the application does not know them, so nothing was stored.\n"
                .to_owned();
        };
        let mut text = format!(
            "\n| clicks per second, plain file | new database | {} keys stored |\n| --- | ---: | ---: |\n",
            thousands(crate::load::to_float(*stored))
        );
        for (name, index) in [("new keys", 0), ("random keys", 1)] {
            let _ = writeln!(text, "| {name} | {} | {} |", thousands(before[index]), thousands(after[index]));
        }
        text
    }

    /// Every figure.
    fn everything(&self) -> String {
        let mut text = "\n<details><summary>All figures</summary>\n\n\
            | place | request | connections | server | requests/s | median | 99th percentile | CPU/request | \
            LiteFS's CPU/request | memory | failed |\n\
            | --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
            .to_owned();
        for (cell, figures) in &self.table {
            let litefs = figures.litefs_cpu.map_or("–".to_owned(), |cpu| format!("{cpu:.0} µs"));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {:.2} ms | {:.2} ms | {:.0} µs | {litefs} | {:.1} MiB | {} |",
                cell.place.name(),
                cell.workload.name(),
                cell.connections,
                cell.server,
                thousands(figures.rate),
                figures.median,
                figures.p99,
                figures.cpu,
                figures.memory,
                figures.errors
            );
        }
        text + "\n</details>\n"
    }
}

/// What a soak showed.
pub fn soak(soak: &Soak, machine: &str) -> String {
    let mut text = format!(
        "Measured on: {machine} {:.1} minutes of load through LiteFS's proxy on the primary: {} reads and {} clicks, \
         each with a new key, per second; none failed.\n\n![Memory](images/soak-memory.svg)\n\n\
         ![WAL](images/soak-wal.svg)\n\n| MiB | second fifth | last fifth |\n| --- | ---: | ---: |\n",
        soak.duration.as_secs_f64() / 60.0,
        thousands(soak.reads.rate()),
        thousands(soak.clicks.rate())
    );
    for series in &soak.series {
        let (early, late) = Soak::growth(series);
        let _ = writeln!(text, "| {} | {early:.2} | {late:.2} |", series.name);
    }
    text
}

/// File names and SVG.
pub fn soak_plots(soak: &Soak) -> [(&'static str, String); 2] {
    let (memory, wal) = soak.series.split_at(2);
    [
        ("soak-memory.svg", chart::lines("Memory under load", "MiB", memory)),
        ("soak-wal.svg", chart::lines("Size of SQLite's WAL under load", "MiB", wal)),
    ]
}
