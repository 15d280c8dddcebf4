//! As much of IPv6 and TCP as the router needs: who sends to whom, and the answer that refuses a connection.

use std::net::Ipv6Addr;

const HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const TCP: u8 = 6;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Source and destination, or `None` for what is no IPv6 packet.
pub fn addresses(packet: &[u8]) -> Option<(Ipv6Addr, Ipv6Addr)> {
    if packet.first()? >> 4 != 6 {
        return None;
    }
    Some((address(packet, 8)?, address(packet, 24)?))
}

/// What the destination would answer if nothing listened there; `None` for all but TCP.
///
/// Extension headers are not looked for: Linux sends none with ordinary TCP.
pub fn reset(packet: &[u8]) -> Option<Vec<u8>> {
    let (source, destination) = addresses(packet)?;
    let segment = packet.get(HEADER..)?;
    if packet[6] != TCP || segment.len() < TCP_HEADER || segment[13] & RST != 0 {
        return None;
    }
    let flags = segment[13];
    // RFC 9293, section 3.10.7.1: the answer has to prove that it belongs to the connection.
    let (sequence, acknowledged, answer) = if flags & ACK != 0 {
        (u32_at(segment, 8), 0, RST)
    } else {
        let content = segment.len().checked_sub(usize::from(segment[12] >> 4) * 4)?;
        let length = u32::try_from(content).ok()? + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        (0, u32_at(segment, 4).wrapping_add(length), RST | ACK)
    };

    let mut tcp = Vec::with_capacity(TCP_HEADER);
    tcp.extend_from_slice(&segment[2..4]);
    tcp.extend_from_slice(&segment[..2]);
    tcp.extend_from_slice(&u32::to_be_bytes(sequence));
    tcp.extend_from_slice(&u32::to_be_bytes(acknowledged));
    tcp.extend_from_slice(&[0x50, answer, 0, 0, 0, 0, 0, 0]);
    let checksum = checksum(destination, source, &tcp);
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());

    let mut reply = vec![0x60, 0, 0, 0, 0, 20, TCP, 64];
    reply.extend_from_slice(&destination.octets());
    reply.extend_from_slice(&source.octets());
    reply.append(&mut tcp);
    Some(reply)
}

/// The internet checksum over the segment and its pseudo-header (RFC 8200, section 8.1).
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, tcp: &[u8]) -> u16 {
    let mut sum = u32::from(TCP) + 20;
    for pair in [&source.octets(), &destination.octets(), tcp].into_iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair[1]);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits by the loop")
}

fn address(packet: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
    Some(octets.into())
}

fn u32_at(segment: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_asked_for_is_refused_with_its_own_number() {
        let reset = reset(&syn(7)).unwrap();
        let (source, destination) = addresses(&reset).unwrap();
        assert_eq!((source.segments()[7], destination.segments()[7]), (2, 1));
        let tcp = &reset[HEADER..];
        assert_eq!((&tcp[..2], &tcp[2..4]), (&[0, 80][..], &[200, 0][..]));
        assert_eq!((u32_at(tcp, 8), tcp[13]), (8, RST | ACK));
        assert_eq!(checksum(source, destination, tcp), 0, "over a right checksum the sum is 0");
    }

    #[test]
    fn what_is_no_whole_packet_or_a_reset_itself_is_not_answered() {
        let syn = syn(7);
        for length in 0..syn.len() {
            assert_eq!(reset(&syn[..length]), None, "{length} bytes");
        }
        assert_eq!(reset(&reset(&syn).unwrap()), None);
    }

    /// From `::1`, port 51200, to `::2`, port 80.
    fn syn(sequence: u8) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 20, TCP, 64];
        packet.extend_from_slice(&Ipv6Addr::from_bits(1).octets());
        packet.extend_from_slice(&Ipv6Addr::from_bits(2).octets());
        packet
            .extend_from_slice(&[200, 0, 0, 80, 0, 0, 0, sequence, 0, 0, 0, 0, 0x50, SYN, 0, 0, 0, 0, 0, 0]);
        packet
    }
}
