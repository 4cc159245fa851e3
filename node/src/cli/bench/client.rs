//! The clients that load a broker.

use citybrain_hub::door::packet::client::{Connack, Hello};
use citybrain_hub::door::packet::{self, Head, Version, kind, publish, put_ack, reason};
use miette::IntoDiagnostic;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(120);
const VERSION: Version = Version::V4;

/// An MQTT 3.1.1 client that costs little.
pub struct Client {
    socket: TcpStream,
    input: Vec<u8>,
}

impl Client {
    pub async fn connect(port: u16, id: String, clean: bool) -> miette::Result<Client> {
        let socket = TcpStream::connect(("127.0.0.1", port)).await.into_diagnostic()?;
        socket.set_nodelay(true).into_diagnostic()?;
        let mut client = Client { socket, input: Vec::new() };
        // A keep-alive that the bench outlives would be answered by nobody.
        let (username, password) = (None, None);
        let mut out = Vec::new();
        Hello { version: VERSION, client_id: &id, clean, keep_alive_s: 0, username, password }.put(&mut out);
        client.socket.write_all(&out).await.into_diagnostic()?;
        let (kind, answer) = client.packet().await?;
        if kind != kind::CONNACK || !Connack::parse(&answer).is_ok_and(|c| c.code == reason::SUCCESS) {
            miette::bail!("CONNECT was answered by {kind}: {answer:x?}");
        }
        // Thousands of them are idle.
        client.input.shrink_to_fit();
        Ok(client)
    }

    /// More bytes.
    async fn read(&mut self) -> miette::Result<()> {
        let read = tokio::time::timeout(PATIENCE, self.socket.read_buf(&mut self.input)).await;
        match read.map_err(|_| miette::miette!("nothing came for {} s", PATIENCE.as_secs()))?.into_diagnostic()? {
            0 => miette::bail!("the broker closed a connection"),
            _ => Ok(()),
        }
    }

    /// One whole packet: its kind and its body.
    async fn packet(&mut self) -> miette::Result<(u8, Vec<u8>)> {
        loop {
            let head = Head::parse(&self.input).map_err(|e| miette::miette!("{e}"))?;
            if let Some(head) = head.filter(|h| self.input.len() >= h.total_bytes()) {
                let body = self.input[head.head_bytes..head.total_bytes()].to_vec();
                self.input.drain(..head.total_bytes());
                return Ok((head.kind, body));
            }
            self.read().await?;
        }
    }

    /// Hands on each packet that is there, whole: kind, flags, body.
    async fn packets(&mut self, mut each: impl FnMut(u8, u8, &[u8])) -> miette::Result<()> {
        self.read().await?;
        let mut at = 0;
        while let Some(head) = Head::parse(&self.input[at..]).map_err(|e| miette::miette!("{e}"))? {
            let Some(body) = self.input[at..].get(head.head_bytes..head.total_bytes()) else { break };
            each(head.kind, head.flags, body);
            at += head.total_bytes();
        }
        self.input.drain(..at);
        Ok(())
    }

    /// With QoS 1.
    pub async fn subscribe(&mut self, filters: impl Iterator<Item = &str>) -> miette::Result<()> {
        let mut out = Vec::new();
        packet::client::put_subscribe(VERSION, 1, filters, 1, &mut out);
        self.socket.write_all(&out).await.into_diagnostic()?;
        let (kind, answer) = self.packet().await?;
        if kind != kind::SUBACK || answer.get(2..).is_none_or(|codes| codes.contains(&reason::UNSPECIFIED)) {
            miette::bail!("SUBSCRIBE was answered by {kind}: {answer:x?}");
        }
        Ok(())
    }

    /// Takes `n` messages and acknowledges them.
    pub async fn take(&mut self, n: usize) -> miette::Result<()> {
        self.take_each(n, |_| true).await
    }

    /// The same, of messages that [`Client::publish_numbered`] made.
    ///
    /// # Errors
    /// When one is missing, twice or out of order.
    pub async fn take_numbered(&mut self, n: usize) -> miette::Result<()> {
        let mut next = 0u64;
        self.take_each(n, |payload| {
            let is_next = payload.starts_with(&next.to_be_bytes());
            next += 1;
            is_next
        })
        .await
    }

    /// The same, each looked at.
    ///
    /// # Errors
    /// When one is not right.
    pub async fn take_each(&mut self, n: usize, mut is_right: impl FnMut(&[u8]) -> bool) -> miette::Result<()> {
        let mut taken = 0;
        let mut wrong = None;
        let mut out = Vec::new();
        while taken < n {
            self.packets(|kind, flags, body| {
                if kind != kind::PUBLISH {
                    return;
                }
                taken += 1;
                if let Ok(p) = publish::In::parse(VERSION, flags, body) {
                    if !is_right(p.payload) {
                        wrong.get_or_insert(taken);
                    }
                    if p.qos == 1 {
                        put_ack(VERSION, kind::PUBACK, p.id, 0, &mut out);
                    }
                }
            })
            .await?;
            if let Some(n) = wrong {
                miette::bail!("message {n} is not the one that was to come");
            }
            self.socket.write_all(&out).await.into_diagnostic()?;
            out.clear();
        }
        Ok(())
    }

    /// Publishes `n` messages with QoS 1, at most `window` of them not acknowledged.
    pub async fn publish(
        &mut self,
        n: usize,
        window: usize,
        bytes: usize,
        topic: impl Fn(usize) -> String,
    ) -> miette::Result<()> {
        self.publish_each(n, window, bytes, topic, |_, _| {}).await
    }

    /// The same on one topic, each with its number from 0 in its first 8 bytes.
    pub async fn publish_numbered(&mut self, n: usize, window: usize, bytes: usize, topic: &str) -> miette::Result<()> {
        let number = |n: usize, payload: &mut Vec<u8>| payload[..8].copy_from_slice(&(n as u64).to_be_bytes());
        self.publish_each(n, window, bytes.max(8), |_| topic.into(), number).await
    }

    /// The same with these payloads.
    pub async fn publish_texts(
        &mut self,
        n: usize,
        window: usize,
        topic: &str,
        text: impl Fn(usize) -> Vec<u8>,
    ) -> miette::Result<()> {
        self.publish_each(n, window, 0, |_| topic.into(), |i, payload| *payload = text(i)).await
    }

    async fn publish_each(
        &mut self,
        n: usize,
        window: usize,
        bytes: usize,
        topic: impl Fn(usize) -> String,
        fill: impl Fn(usize, &mut Vec<u8>),
    ) -> miette::Result<()> {
        let mut payload = vec![b'x'; bytes];
        let (mut sent, mut acknowledged) = (0, 0);
        let mut out = Vec::new();
        while acknowledged < n {
            while sent < n && sent - acknowledged < window {
                fill(sent, &mut payload);
                let id = (sent % 65_535) as u16 + 1;
                packet::client::publish(id, &topic(sent), &payload).put(VERSION, &mut out);
                sent += 1;
            }
            self.socket.write_all(&out).await.into_diagnostic()?;
            out.clear();
            self.packets(|kind, _, _| acknowledged += usize::from(kind == kind::PUBACK)).await?;
        }
        Ok(())
    }
}
