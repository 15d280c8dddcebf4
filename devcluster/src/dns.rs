//! Private DNS, as Fly's (<https://fly.io/docs/networking/private-networking/>).
//!
//! | name | record |
//! | --- | --- |
//! | `<id>.vm.<app>.internal`, `<region>.<app>.internal`, `<app>.internal` | AAAA (or A): the instances' addresses |
//! | `vms.<app>.internal` | TXT: `<id> <region>,<id> <region>` |
//! | `regions.<app>.internal` | TXT: `<region>,<region>` |
//! | `consul.internal` | AAAA (or A): the cluster's Consul, which Fly's DNS does not have |
//!
//! A is for networks without IPv6, which Fly's is not: containers' mostly are.
//!
//! Only instances are listed that are up, those included that are about to stop. Other names do not exist: nothing
//! is asked of the internet.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use anyhow::{Context as _, Result};
use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{
        RData, Record, RecordType,
        rdata::{A, AAAA, TXT},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::JoinSet,
};

use crate::edge::Backend;

/// In seconds. Fly's answers may be kept for 5.
const TTL: u32 = 1;

/// What there is to know.
pub struct Zone {
    /// The app's name.
    pub app: String,
    /// The instances there are, at any moment.
    pub backends: watch::Receiver<Vec<Backend>>,
    /// Where Consul is.
    pub consul: IpAddr,
}

/// A running name server. Dropping it stops it.
pub struct Dns {
    _serving: JoinSet<()>,
}

impl Dns {
    /// Answers on port 53 of this address, by UDP and TCP. Needs root.
    pub async fn start(address: IpAddr, zone: Zone) -> Result<Dns> {
        let sockets = tokio::try_join!(UdpSocket::bind((address, 53)), TcpListener::bind((address, 53)));
        let (udp, tcp) = sockets.with_context(|| format!("DNS cannot listen on {address}, port 53"))?;
        let zone = Arc::new(zone);
        let mut serving = JoinSet::new();
        serving.spawn(serve_udp(udp, zone.clone()));
        serving.spawn(serve_tcp(tcp, zone));
        Ok(Dns { _serving: serving })
    }
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Zone>) {
    // No question is this long; what is cut off is no DNS and gets no answer.
    let mut buffer = [0; 4096];
    loop {
        // An error is about one packet: the client that it was for is gone.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        if let Some(answer) = zone.answer(&buffer[..length], Transport::Udp) {
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Zone>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                clients.spawn(converse(stream, zone.clone()));
            }
            Some(_) = clients.join_next() => {}
        }
    }
}

/// Until the client leaves or sends what is no DNS: each message is preceded by its length.
async fn converse(mut stream: TcpStream, zone: Arc<Zone>) {
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; usize::from(length)];
        let Ok(_) = stream.read_exact(&mut question).await else { return };
        let Some(answer) = zone.answer(&question, Transport::Tcp) else { return };
        let Ok(length) = u16::try_from(answer.len()) else { return };
        let message = [&length.to_be_bytes(), answer.as_slice()].concat();
        let Ok(()) = stream.write_all(&message).await else { return };
    }
}

/// How long an answer may be depends on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

/// A name's records.
#[derive(Debug, PartialEq)]
enum Found {
    Addresses(Vec<IpAddr>),
    Text(String),
}

impl Zone {
    /// `None` where the name does not exist.
    fn find(&self, name: &str) -> Option<Found> {
        let backends = self.backends.borrow();
        let addresses = |wanted: &dyn Fn(&Backend) -> bool| {
            let found = backends.iter().filter(|backend| wanted(backend));
            Found::Addresses(found.map(|backend| backend.address.ip()).collect())
        };
        if name == "consul.internal" {
            return Some(Found::Addresses(vec![self.consul]));
        }
        let under_app = name.strip_suffix(".internal")?.strip_suffix(self.app.as_str())?;
        let found = match under_app.strip_suffix('.') {
            None if under_app.is_empty() => addresses(&|_| true),
            None => return None,
            Some("vms") => {
                let each = backends.iter().map(|backend| format!("{} {}", backend.id, backend.region));
                Found::Text(each.collect::<Vec<_>>().join(","))
            }
            Some("regions") => {
                let each: BTreeSet<&str> = backends.iter().map(|backend| backend.region.as_str()).collect();
                Found::Text(each.into_iter().collect::<Vec<_>>().join(","))
            }
            Some(host) => match host.strip_suffix(".vm") {
                Some(id) => addresses(&|backend| backend.id == id),
                None => addresses(&|backend| backend.region == host),
            },
        };
        let nothing = match &found {
            Found::Addresses(addresses) => addresses.is_empty(),
            Found::Text(text) => text.is_empty(),
        };
        (!nothing).then_some(found)
    }

    /// `None` for what is no question.
    fn answer(&self, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let question = Message::from_vec(question).ok()?;
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        // Otherwise some clients go on to look for a server that knows more.
        answer.metadata.recursion_available = true;
        answer.metadata.authoritative = true;
        answer.add_queries(question.queries.iter().cloned());
        match self.records(question.queries.first()?) {
            Some(records) => answer.insert_answers(records),
            None => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        let bytes = answer.to_vec().ok()?;
        if transport == Transport::Udp && bytes.len() > usize::from(question.max_payload()) {
            return answer.truncate().to_vec().ok();
        }
        Some(bytes)
    }

    /// None of the type that was asked for, where the name has only others.
    fn records(&self, query: &Query) -> Option<Vec<Record>> {
        let name = query.name().to_ascii().to_ascii_lowercase();
        let data: Vec<RData> = match (query.query_type(), self.find(name.trim_end_matches('.'))?) {
            (asked @ (RecordType::A | RecordType::AAAA), Found::Addresses(addresses)) => {
                addresses.into_iter().map(address).filter(|data| data.record_type() == asked).collect()
            }
            (RecordType::TXT, Found::Text(text)) => vec![RData::TXT(TXT::new(vec![text]))],
            _ => Vec::new(),
        };
        let record = |data| Record::from_rdata(query.name().clone(), TTL, data);
        Some(data.into_iter().map(record).collect())
    }
}

fn address(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::edge::BackendState;

    #[test]
    fn instances_are_found_by_id_by_region_and_by_app() {
        let zone = zone();
        let addresses = |last: &[u16]| {
            let each = last.iter().map(|last| Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, *last).into());
            Some(Found::Addresses(each.collect()))
        };
        assert_eq!(zone.find("sjc-2.vm.counter.internal"), addresses(&[2]));
        assert_eq!(zone.find("sjc.counter.internal"), addresses(&[1, 2]));
        assert_eq!(zone.find("counter.internal"), addresses(&[1, 2, 3]));
        assert_eq!(zone.find("consul.internal"), addresses(&[8]));
    }

    #[test]
    fn the_lists_of_instances_and_regions_are_one_string_each() {
        let text = |text: &str| Some(Found::Text(text.to_owned()));
        assert_eq!(zone().find("vms.counter.internal"), text("sjc-1 sjc,sjc-2 sjc,ams-1 ams"));
        assert_eq!(zone().find("regions.counter.internal"), text("ams,sjc"));
    }

    #[test]
    fn other_names_do_not_exist() {
        for name in
            ["fly.io", "internal", "xcounter.internal", "syd.counter.internal", "a.b.vm.counter.internal", ""]
        {
            assert_eq!(zone().find(name), None, "{name}");
        }
    }

    #[test]
    fn an_address_is_given_to_who_asks_for_its_kind() {
        let mut zone = zone();
        zone.consul = IpAddr::from([10, 0, 0, 8]);
        let answers = |name: &str, asked| {
            let query = Query::query(name.parse().unwrap(), asked);
            zone.records(&query).map(|records| records.len())
        };
        assert_eq!(answers("consul.internal.", RecordType::A), Some(1));
        assert_eq!(answers("consul.internal.", RecordType::AAAA), Some(0));
        assert_eq!(answers("sjc-1.vm.counter.internal.", RecordType::A), Some(0));
        assert_eq!(answers("sjc-1.vm.counter.internal.", RecordType::AAAA), Some(1));
    }

    fn zone() -> Zone {
        let backend = |id: &str, last| Backend {
            id: id.to_owned(),
            region: id[..3].to_owned(),
            address: (Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, last), 8080).into(),
            state: BackendState::Started,
        };
        let backends = vec![backend("sjc-1", 1), backend("sjc-2", 2), backend("ams-1", 3)];
        let consul = Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, 8).into();
        Zone { app: "counter".to_owned(), backends: watch::channel(backends).1, consul }
    }
}
