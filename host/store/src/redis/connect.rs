//! Connections: to one server, to the one that Sentinels name, or to a Cluster.

use std::net::SocketAddr;
use std::time::Duration;

use countersign_core::loopback::is_loopback;
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, SingleNodeRoutingInfo, SlotAddr};
use redis::io::AsyncDNSResolver;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _,
    Pipeline, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError, RedisFuture, RedisResult,
    TlsCertificates, Value,
};
use tokio::sync::mpsc::UnboundedSender;

use super::address::{Hosts, RedisUrl};
use super::call::Tag;
use super::options::RedisOptions;

/// After how long without an answer from the other side a connection is given up.
const DEAD_AFTER: Duration = Duration::from_secs(10);

/// A connection. Its clones share it.
#[derive(Clone)]
pub(super) enum Connection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Carries out one command. In a Cluster it goes where its key is.
    pub(super) async fn command(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Connection::Server(server) => server.req_packed_command(command).await,
            Connection::Cluster(cluster) => cluster.req_packed_command(command).await,
        }
    }

    /// Carries out commands about one partition, one after another, on the server that has it.
    pub(super) async fn pipeline(&mut self, commands: Pipeline, tag: &Tag) -> RedisResult<Vec<Value>> {
        let count = commands.len();
        match self {
            Connection::Server(server) => server.req_packed_commands(&commands, 0, count).await,
            Connection::Cluster(cluster) => {
                let route = Route::with_key(tag.as_str(), SlotAddr::Master);
                cluster.route_pipeline(commands, 0, count, SingleNodeRoutingInfo::SpecificNode(route)).await
            }
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Connection::Cluster(_))
    }
}

/// Makes connections.
#[derive(Debug)]
pub(super) struct Connector {
    url: RedisUrl,
    authorities: Option<Vec<u8>>,
    plaintext: bool,
    connect_timeout: Duration,
    response_timeout: Duration,
}

impl Connector {
    pub(super) fn of(options: &RedisOptions) -> Connector {
        if options.url.tls {
            // Somebody else may have chosen one already; then that is used.
            let _chosen = rustls::crypto::ring::default_provider().install_default();
        }
        Connector {
            url: options.url.clone(),
            authorities: options.authorities.clone(),
            plaintext: options.plaintext,
            connect_timeout: options.connect_timeout,
            response_timeout: options.response_timeout,
        }
    }

    pub(super) fn url(&self) -> &RedisUrl {
        &self.url
    }

    /// A connection for commands; or, if what is published is to be passed on, one for subscriptions.
    pub(super) async fn connect(&self, pushed: Option<UnboundedSender<PushInfo>>) -> RedisResult<Connection> {
        match &self.url.hosts {
            Hosts::One(host, port) => self.server(self.address(host, *port)?, pushed).await,
            Hosts::Socket(path) => self.server(ConnectionAddr::Unix(path.clone()), pushed).await,
            Hosts::Sentinels(sentinels, name) => self.primary(sentinels, name, pushed).await,
            Hosts::Cluster(nodes) => self.cluster(nodes, pushed).await,
        }
    }

    async fn server(
        &self,
        address: ConnectionAddr,
        pushed: Option<UnboundedSender<PushInfo>>,
    ) -> RedisResult<Connection> {
        let info = self.info(address, pushed.is_some())?;
        Ok(Connection::Server(self.open(info, pushed).await?))
    }

    async fn open(
        &self,
        info: ConnectionInfo,
        pushed: Option<UnboundedSender<PushInfo>>,
    ) -> RedisResult<MultiplexedConnection> {
        // How long an answer may take is looked at by whoever waits for it.
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(1024);
        if let Some(pushed) = pushed {
            config = config.set_push_sender(pushed);
        }
        Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
    }

    /// The server that the Sentinels say is the primary, if it says so too.
    async fn primary(
        &self,
        sentinels: &[(String, u16)],
        name: &str,
        pushed: Option<UnboundedSender<PushInfo>>,
    ) -> RedisResult<Connection> {
        let mut last = RedisError::from((ErrorKind::EmptySentinelList, "there is no Sentinel"));
        for (host, port) in sentinels {
            let found = async {
                let (host, port) = self.ask_sentinel(host, *port, name).await?;
                let mut connection = self.server(self.address(&host, port)?, pushed.clone()).await?;
                let role = self.answer(connection.command(&redis::cmd("ROLE"))).await?;
                let role = role.as_sequence().and_then(<[Value]>::first);
                match role.map(redis::from_redis_value_ref::<String>) {
                    Some(Ok(role)) if role == "master" => Ok(connection),
                    _ => Err((ErrorKind::Io, "the server that the Sentinel names is no primary").into()),
                }
            };
            match found.await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask_sentinel(&self, host: &str, port: u16, name: &str) -> RedisResult<(String, u16)> {
        // The Sentinels have no name and password of ours.
        let info = self.address(host, port)?.into_connection_info()?.set_tcp_settings(tcp());
        let mut sentinel = self.open(info, None).await?;
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let answer = self.answer(sentinel.req_packed_command(&ask)).await?.extract_error()?;
        let found: Option<(String, u16)> = redis::from_redis_value(answer)?;
        found.ok_or_else(|| {
            (ErrorKind::MasterNameNotFoundBySentinel, "the Sentinel knows no such server").into()
        })
    }

    async fn cluster(
        &self,
        nodes: &[(String, u16)],
        pushed: Option<UnboundedSender<PushInfo>>,
    ) -> RedisResult<Connection> {
        let nodes = nodes.iter().map(|(host, port)| {
            let info = self.address(host, *port)?.into_connection_info()?;
            Ok(info.set_redis_settings(self.login(pushed.is_some())))
        });
        let nodes = nodes.collect::<RedisResult<Vec<_>>>()?;
        // The client sends writes again too, which they are made for. Without that, it would follow no redirections.
        let mut builder = ClusterClientBuilder::new(nodes)
            .retries(3)
            .connection_timeout(self.connect_timeout)
            .response_timeout(self.response_timeout + DEAD_AFTER)
            .tcp_settings(tcp());
        if !self.url.tls && !self.plaintext {
            builder = builder.async_dns_resolver(OnThisMachine);
        }
        if let Some(authorities) = &self.authorities {
            let root_cert = Some(authorities.clone());
            builder = builder.certs(TlsCertificates { client_tls: None, root_cert });
        }
        if let Some(pushed) = pushed {
            builder = builder.use_protocol(ProtocolVersion::RESP3).push_sender(pushed);
        }
        Ok(Connection::Cluster(builder.build()?.get_async_connection().await?))
    }

    async fn answer(&self, asked: impl Future<Output = RedisResult<Value>>) -> RedisResult<Value> {
        let answered = tokio::time::timeout(self.response_timeout, asked).await;
        answered.unwrap_or_else(|_| Err((ErrorKind::Io, "no answer in time").into()))
    }

    fn address(&self, host: &str, port: u16) -> RedisResult<ConnectionAddr> {
        if !self.url.tls {
            // Also one that a Sentinel names.
            if !self.plaintext && !is_loopback(host) {
                return Err(elsewhere());
            }
            return Ok(ConnectionAddr::Tcp(host.to_owned(), port));
        }
        let address =
            ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: false, tls_params: None };
        let certificates = TlsCertificates { client_tls: None, root_cert: self.authorities.clone() };
        let client = Client::build_with_tls(address, certificates)?;
        Ok(client.get_connection_info().addr().clone())
    }

    fn info(&self, address: ConnectionAddr, pushes: bool) -> RedisResult<ConnectionInfo> {
        Ok(address.into_connection_info()?.set_tcp_settings(tcp()).set_redis_settings(self.login(pushes)))
    }

    fn login(&self, pushes: bool) -> RedisConnectionInfo {
        // Only the newer protocol tells published messages from answers.
        let protocol = if pushes { ProtocolVersion::RESP3 } else { ProtocolVersion::RESP2 };
        let mut login = RedisConnectionInfo::default().set_protocol(protocol).set_skip_set_lib_name();
        if let Some(user) = &self.url.user {
            login = login.set_username(user);
        }
        if let Some(password) = &self.url.password {
            login = login.set_password(String::from_utf8_lossy(password.expose()));
        }
        login
    }
}

/// Finds addresses of this machine, and no others: the nodes that a Cluster announces, now or later, can be anywhere, and
/// without TLS only those here are used.
struct OnThisMachine;

impl AsyncDNSResolver for OnThisMachine {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let mut found = Vec::new();
            if is_loopback(host) {
                found.extend(tokio::net::lookup_host((host, port)).await?);
                found.retain(|address| address.ip().is_loopback());
            }
            if found.is_empty() {
                return Err(elsewhere());
            }
            Ok(Box::new(found.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}

fn elsewhere() -> RedisError {
    (ErrorKind::InvalidClientConfig, "it is on another machine, and without TLS").into()
}

fn tcp() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(DEAD_AFTER).with_interval(Duration::from_secs(2));
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(DEAD_AFTER);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_this_machine_is_found() {
        for (host, is_here) in [
            ("127.0.0.1", true),
            ("localhost", true),
            ("192.0.2.1", false),
            ("0.0.0.0", false),
            ("redis.internal", false),
        ] {
            let found = OnThisMachine.resolve(host, 6379).await;
            assert_eq!(found.is_ok_and(|mut found| found.next().is_some()), is_here, "{host}");
        }
    }
}
