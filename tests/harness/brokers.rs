//! Brokers that we did not write, to stand between the nodes.

use super::certs::Ca;
use super::{free_port, wait_for};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With persistence, saved every second.
    Mosquitto,
    /// MQTT over JetStream.
    Nats,
    /// The MQTT plugin.
    RabbitMq,
}

impl Kind {
    fn program(self) -> Option<PathBuf> {
        let (name, elsewhere) = match self {
            Kind::Mosquitto => ("mosquitto", "/usr/sbin/mosquitto"),
            Kind::Nats => ("nats-server", "/usr/sbin/nats-server"),
            Kind::RabbitMq => ("rabbitmq-server", "/usr/lib/rabbitmq/bin/rabbitmq-server"),
        };
        // The script of that name in the path would start RabbitMQ as another user.
        let in_path = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .map(|dir| dir.join(name))
            .filter(|_| self != Kind::RabbitMq)
            .find(|p| p.is_file());
        in_path.or_else(|| Some(PathBuf::from(elsewhere)).filter(|p| p.is_file()))
    }
}

/// Files of a door, PEM.
struct Tls {
    ca: String,
    cert: String,
    key: String,
}

/// One running broker; killed with its owner.
pub struct Broker {
    kind: Kind,
    pub port: u16,
    /// Its config lies here, its data in `data` below.
    dir: PathBuf,
    /// It speaks to everybody; a door that wants a certificate does not.
    is_open: bool,
    command: (PathBuf, Vec<String>, Vec<(String, String)>),
    process: Option<Child>,
    /// RabbitMQ's name server.
    epmd: Option<Child>,
}

impl Broker {
    /// `None`, aloud, where it is not installed.
    pub fn start(kind: Kind, dir: &Path) -> Option<Broker> {
        Broker::start_as(kind, dir, None)
    }

    /// Its door is TLS, and for clients with a certificate of this authority alone.
    pub fn start_tls(kind: Kind, dir: &Path, ca: &Ca) -> Option<Broker> {
        let own = ca.issue("broker", "broker");
        let path = |p: &Path| p.display().to_string();
        Broker::start_as(kind, dir, Some(Tls { ca: path(&ca.pem), cert: path(&own.cert), key: path(&own.key) }))
    }

    fn start_as(kind: Kind, dir: &Path, tls: Option<Tls>) -> Option<Broker> {
        let Some(program) = kind.program() else {
            crate::harness::skipped(&format!(
                "{kind:?} is not installed (README, \"Two commands\", names the packages)"
            ));
            return None;
        };
        let port = free_port();
        let dir = dir.join(format!("{kind:?}-{port}"));
        std::fs::create_dir_all(dir.join("data")).expect("a folder for the broker");
        let mut broker = Broker {
            kind,
            port,
            dir,
            is_open: tls.is_none(),
            command: (program, Vec::new(), Vec::new()),
            process: None,
            epmd: None,
        };
        match kind {
            Kind::Mosquitto => broker.lay_mosquitto(tls),
            Kind::Nats => broker.lay_nats(tls),
            Kind::RabbitMq => broker.lay_rabbitmq(tls),
        }
        broker.run();
        Some(broker)
    }

    /// Three NATS servers as one broker: every stream is on all of them. `None`, aloud, where NATS is
    /// not installed.
    pub fn nats_cluster(dir: &Path) -> Option<Vec<Broker>> {
        let Some(program) = Kind::Nats.program() else {
            crate::harness::skipped("Nats is not installed (README, \"Two commands\", names the packages)");
            return None;
        };
        let routes: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let all: Vec<String> = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        let lay = |(i, route): (usize, &u16)| {
            let port = free_port();
            let dir = dir.join(format!("cluster-{i}"));
            std::fs::create_dir_all(dir.join("data")).expect("a folder for the broker");
            let mut broker = Broker {
                kind: Kind::Nats,
                port,
                dir,
                is_open: true,
                command: (program.clone(), Vec::new(), Vec::new()),
                process: None,
                epmd: None,
            };
            let text = format!(
                "server_name: city-{i}\nlisten: \"127.0.0.1:{}\"\njetstream {{ store_dir: \"{}\" }}\ncluster {{ name: city, listen: \"127.0.0.1:{route}\", routes: [{}] }}\nmqtt {{ listen: \"127.0.0.1:{port}\", stream_replicas: 3, consumer_replicas: 3 }}\n",
                free_port(),
                broker.dir.join("data").display(),
                all.join(", "),
            );
            broker.command.1 = vec!["-c".into(), broker.write("nats.conf", &text)];
            broker.spawn();
            broker
        };
        let servers: Vec<Broker> = routes.iter().enumerate().map(lay).collect();
        for server in &servers {
            wait_for("the cluster has a leader and answers", || answers(server.port).then_some(()));
        }
        Some(servers)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.dir.join(name);
        std::fs::write(&path, text).expect("the broker's config is written");
        path.display().to_string()
    }

    fn lay_mosquitto(&mut self, tls: Option<Tls>) {
        let more = tls.map_or_else(String::new, |Tls { ca, cert, key }| {
            format!("cafile {ca}\ncertfile {cert}\nkeyfile {key}\nrequire_certificate true\n")
        });
        // Started by root it would change to a user who may not use this folder.
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\nautosave_interval 1\nmax_queued_messages 0\nmessage_size_limit 0\nmax_inflight_messages 1000\nset_tcp_nodelay true\nuser root\n{more}",
            self.port,
            self.dir.join("data").display()
        );
        self.command.1 = vec!["-c".into(), self.write("mosquitto.conf", &text)];
    }

    fn lay_nats(&mut self, tls: Option<Tls>) {
        let more = tls.map_or_else(String::new, |Tls { ca, cert, key }| {
            format!(", tls {{ ca_file: \"{ca}\", cert_file: \"{cert}\", key_file: \"{key}\", verify: true }}")
        });
        let text = format!(
            "server_name: city\nlisten: \"127.0.0.1:{}\"\njetstream {{ store_dir: \"{}\" }}\nmqtt {{ listen: \"127.0.0.1:{}\", ack_wait: \"2s\", max_ack_pending: 1000{more} }}\n",
            free_port(),
            self.dir.join("data").display(),
            self.port
        );
        self.command.1 = vec!["-c".into(), self.write("nats.conf", &text)];
    }

    fn lay_rabbitmq(&mut self, tls: Option<Tls>) {
        let (amqp, distribution, names) = (free_port(), free_port(), free_port());
        let door = match tls {
            None => format!("mqtt.listeners.tcp.default = 127.0.0.1:{}\n", self.port),
            Some(Tls { ca, cert, key }) => format!(
                "mqtt.listeners.tcp = none\nmqtt.listeners.ssl.default = 127.0.0.1:{}\nssl_options.cacertfile = {ca}\nssl_options.certfile = {cert}\nssl_options.keyfile = {key}\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n",
                self.port
            ),
        };
        let conf = format!(
            "listeners.tcp.default = 127.0.0.1:{amqp}\n{door}mqtt.allow_anonymous = true\nlog.console = true\nlog.file = false\n"
        );
        let conf = self.write("rabbitmq.conf", &conf);
        let plugins = self.write("enabled_plugins", "[rabbitmq_mqtt].\n");
        let data = self.dir.join("data").display().to_string();
        let env = [
            ("HOME", self.dir.display().to_string()),
            ("RUNNING_UNDER_SYSTEMD", "1".into()),
            ("RABBITMQ_NODENAME", format!("test{}@localhost", self.port)),
            ("RABBITMQ_DIST_PORT", distribution.to_string()),
            ("RABBITMQ_MNESIA_BASE", data.clone()),
            ("RABBITMQ_LOG_BASE", data),
            ("RABBITMQ_LOGS", "-".into()),
            ("RABBITMQ_CONFIG_FILE", conf),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", plugins),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".into()),
            ("RABBITMQ_PID_FILE", self.dir.join("pid").display().to_string()),
            ("ERL_EPMD_PORT", names.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1} +sbwt none".into(),
            ),
        ];
        self.command.2 = env.map(|(k, v)| (k.to_owned(), v)).into();
        let epmd = Command::new("epmd")
            .args(["-port", &names.to_string(), "-address", "127.0.0.1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.epmd = Some(epmd.expect("Erlang's epmd comes with RabbitMQ"));
    }

    /// Starts it, again, and waits until it speaks MQTT, unless it speaks only to whom it knows.
    pub fn run(&mut self) {
        self.spawn();
        if !self.is_open {
            return;
        }
        wait_for(&format!("{:?} answers", self.kind), || answers(self.port).then_some(()));
    }

    fn spawn(&mut self) {
        let (program, arguments, env) = &self.command;
        let log = std::fs::File::create(self.dir.join("log")).expect("a log file");
        let child = Command::new(program)
            .args(arguments)
            .envs(env.iter().map(|(k, v)| (k, v)))
            .stdout(log.try_clone().expect("one more handle"))
            .stderr(log)
            // Of its own, so that all that a script starts ends with it.
            .process_group(0)
            .spawn();
        self.process = Some(child.expect("the broker starts"));
    }

    /// SIGKILL for all of it.
    pub fn kill9(&mut self) {
        let mut child = self.process.take().expect("it runs");
        kill_process_group(Pid::from_child(&child), Signal::KILL).expect("SIGKILL can be sent");
        child.wait().expect("it ends");
    }

    /// The broker forgets everything.
    pub fn delete_data(&self) {
        let data = self.dir.join("data");
        std::fs::remove_dir_all(&data).expect("its data folder goes");
        std::fs::create_dir_all(&data).expect("an empty one comes");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill9();
        }
        if let Some(mut epmd) = self.epmd.take() {
            let _ = epmd.kill();
            let _ = epmd.wait();
        }
    }
}

/// A listening port is not enough: some accept connections long before they serve them.
fn answers(port: u16) -> bool {
    let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = socket.set_read_timeout(Some(Duration::from_secs(2)));
    let connect = super::mqtt::connect_packet("is-it-there", true);
    let mut connack = [0; 4];
    socket.write_all(&connect).is_ok() && socket.read_exact(&mut connack).is_ok() && connack == [0x20, 2, 0, 0]
}
