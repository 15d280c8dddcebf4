//! The figures as Markdown, with their plots, and what is to be reached.

use std::{fmt::Write as _, time::Duration};

use crate::{
    chart::{self, Group, thousands},
    idle::Idle,
    keys::Keys,
    load::Workload,
    measure::{Cell, Figures, Table},
    server::{BARE, OURS, PLAIN},
    site::Place,
    soak::Soak,
    targets,
};

/// With how many connections servers are compared.
pub const TYPICAL: u32 = 64;

/// All that was measured.
pub struct Report {
    pub machine: String,
    pub table: Table,
    pub idle: Vec<Idle>,
    pub keys: Option<Keys>,
    /// Who could not run here, and why.
    pub missing: Vec<String>,
    /// How the programs were built.
    pub conditions: String,
}

impl Report {
    pub fn markdown(&self) -> String {
        let mut text = format!("Measured on: {} {}\n\n", self.machine, self.conditions);
        for reason in &self.missing {
            let _ = writeln!(text, "Not measured here: {reason}\n");
        }
        text += &targets::markdown(self);
        text += "\nThe plots:\n\n\
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

    pub fn figures(
        &self,
        place: Place,
        workload: Workload,
        connections: u32,
        server: &str,
    ) -> Option<&Figures> {
        let is_it = |cell: &Cell| {
            (cell.place, cell.workload, cell.connections) == (place, workload, connections)
                && cell.server == server
        };
        self.table.iter().find(|(cell, _)| is_it(cell)).map(|(_, figures)| figures)
    }

    pub fn rate(&self, place: Place, workload: Workload, connections: u32, server: &str) -> Option<f64> {
        self.figures(place, workload, connections, server).map(|figures| figures.rate)
    }

    /// Servers beside each other.
    fn typical(&self) -> String {
        let connections = self.typical_connections();
        let mut text = String::new();
        for workload in [Workload::Get, Workload::Post, Workload::PostKeyed, Workload::PostRandom] {
            let places: Vec<Place> =
                Place::ALL.into_iter().filter(|place| self.has(*place, workload)).collect();
            if places.is_empty() {
                continue;
            }
            let _ = write!(text, "\n{}, {connections} connections:\n\n| |", workload.name());
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

fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 120 { format!("{seconds} seconds") } else { format!("{} minutes", seconds / 60) }
}

/// What a soak showed.
pub fn soak(soak: &Soak, machine: &str) -> String {
    let mut text = format!(
        "Measured on: {machine} {} of load through LiteFS's proxy on the primary: {} reads and {} clicks, \
         each with a new key, per second; none failed.\n\n![Memory](images/soak-memory.svg)\n\n\
         ![WAL](images/soak-wal.svg)\n\n| MiB | second fifth | last fifth |\n| --- | ---: | ---: |\n",
        time(soak.duration),
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
