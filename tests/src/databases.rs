//! PostgreSQL and Redis as an application that has volumes: what they are to a
//! cluster, writers that never stop, and what they say they have.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifebuoy_testkit::node::images::DATABASES;
use lifebuoy_testkit::sample::apply_yaml;
use lifebuoy_testkit::{Process, ProcessSpec, directory};

use crate::{NodeWorld, eventually};

/// Keys of each type that Redis has from the beginning, in a database that nobody
/// writes to afterwards.
const KEYS: u32 = 500;
/// What is acknowledged before anything else happens.
const FIRST_WRITES: u64 = 50;
const FIRST_WRITES_LIMIT: Duration = Duration::from_secs(60);

/// Each starts on what its volume has, and on nothing but an empty one afresh.
/// The users that they run as are those of their Debian packages.
const START_POSTGRES: &str = "set -e
    run='setpriv --reuid=postgres --regid=postgres --init-groups'
    install -d -o postgres -g postgres -m 700 /data/pg
    [ -s /data/pg/PG_VERSION ] || $run initdb -D /data/pg
    exec $run postgres -D /data/pg -c listen_addresses= -c unix_socket_directories=/tmp";
const START_REDIS: &str = "set -e
    install -d -o redis -g redis /data/redis
    exec setpriv --reuid=redis --regid=redis --init-groups redis-server --dir /data/redis \
        --bind 127.0.0.1 --save '' --appendonly yes --appendfsync always \
        --enable-debug-command local";

/// Asks PostgreSQL to have on disk what it has in memory.
pub const QUIESCE_POSTGRES: &str = "psql -c CHECKPOINT";
/// The same of Redis; it answers when that is done.
pub const QUIESCE_REDIS: &str = "redis-cli bgsave
    until redis-cli info persistence | grep rdb_bgsave_in_progress:0; do sleep 0.1; done
    redis-cli info persistence | grep rdb_last_bgsave_status:ok";

/// The databases in a namespace.
#[derive(Clone, Copy)]
pub struct Databases<'a> {
    /// The cluster.
    pub world: &'a NodeWorld,
    /// Where in it.
    pub namespace: &'a str,
}

/// How far each database has acknowledged what was written to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// The number of the last row.
    pub postgres: u64,
    /// The number of the last element.
    pub redis: u64,
}

impl fmt::Display for Acknowledged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { postgres, redis } = self;
        write!(f, "{postgres} rows and {redis} elements")
    }
}

impl Databases<'_> {
    /// Deploys both, and the constant part of what they have; waits until both
    /// answer. The volumes are of the class.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn deploy(&self, class: &str) -> Result<()> {
        let namespace = self.namespace;
        let of_namespace =
            format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}\n---");
        let ready = ["pg_isready", "redis-cli ping | grep PONG"];
        let postgres = workload(namespace, "postgres", START_POSTGRES, ready[0], class);
        let redis = workload(namespace, "redis", START_REDIS, ready[1], class);
        let yaml = format!("{of_namespace}{postgres}---{redis}");
        apply_yaml(&self.world.client(), &yaml).await?;
        self.ready().await?;
        let table = "create table ledger (n bigint primary key, note text)";
        self.exec("postgres", &format!("psql -qc '{table}'"))
            .await?;
        let keys = format!(
            "for i in $(seq {KEYS}); do
                echo \"SET string:$i value-$i\"
                echo \"HSET hash:$((i % 50)) field-$i $i\"
                echo \"RPUSH list:$((i % 50)) $i\"
                echo \"SADD set:$((i % 50)) $i\"
                echo \"ZADD sorted:$((i % 50)) $i member-$i\"
            done | redis-cli -n 1"
        );
        self.exec("redis", &keys).await?;
        Ok(())
    }

    /// Waits until both answer.
    ///
    /// # Errors
    /// When one does not in time.
    pub async fn ready(&self) -> Result<()> {
        for name in ["postgres", "redis"] {
            let workload = format!("statefulset/{name}");
            self.world.rolled_out(self.namespace, &workload).await?;
        }
        Ok(())
    }

    /// The digest of everything in Redis that is constant.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn constant_digest(&self) -> Result<String> {
        let script = "redis-cli -n 1 dbsize
            redis-cli -n 1 --scan | sort | xargs redis-cli -n 1 debug digest-value | sha256sum";
        self.exec("redis", script).await
    }

    /// What is there of all that was written. Fails where there is a gap in it,
    /// or something that was never written.
    ///
    /// # Errors
    /// When a database does not answer or has other things than were written.
    pub async fn found(&self) -> Result<Acknowledged> {
        let rows = "select count(*), coalesce(max(n), 0), coalesce(min(n), 1),
             count(*) filter (where note <> repeat(md5(n::text), 20)) from ledger";
        let rows = self
            .exec("postgres", &format!("psql -qtAF ' ' -c \"{rows}\""))
            .await?;
        let [count, last, first, wrong] = numbers(&rows)?;
        ensure!(
            count == last && first == 1 && wrong == 0,
            "the ledger has {count} rows, from {first} to {last}, {wrong} of them wrong"
        );
        let elements = "redis-cli lrange numbers 0 -1 |
            awk '$1 != NR {wrong++} END {print NR, wrong + 0}'";
        let elements = self.exec("redis", elements).await?;
        let [elements, wrong] = numbers(&elements)?;
        ensure!(wrong == 0, "{wrong} of {elements} elements are wrong");
        Ok(Acknowledged {
            postgres: last,
            redis: elements,
        })
    }

    /// Lets PostgreSQL look at every page of every table and index, at every tuple
    /// from both sides.
    ///
    /// # Errors
    /// When it finds something.
    pub async fn check_every_page(&self) -> Result<()> {
        let check = "pg_amcheck --all --install-missing --heapallindexed --rootdescend 2>&1";
        let said = self.exec("postgres", check).await?;
        ensure!(said.trim().is_empty(), "pg_amcheck found: {said}");
        Ok(())
    }

    async fn exec(&self, name: &str, script: &str) -> Result<String> {
        let pod = format!("{name}-0");
        self.world.exec(self.namespace, &pod, script).await
    }
}

fn workload(namespace: &str, name: &str, start: &str, ready: &str, class: &str) -> String {
    let start = start.replace('\n', "\n          ");
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{namespace: {namespace}, name: {name}}}
spec: {{clusterIP: None, selector: {{app: {name}}}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{namespace: {namespace}, name: {name}}}
spec:
  serviceName: {name}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: {name}
        image: {DATABASES}
        imagePullPolicy: Never
        command:
        - sh
        - -c
        - |
          {start}
        env:
        - {{name: PGHOST, value: /tmp}}
        - {{name: PGUSER, value: postgres}}
        readinessProbe: {{exec: {{command: [sh, -c, {ready}]}}, periodSeconds: 1}}
        volumeMounts: [{{name: data, mountPath: /data}}]
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec:
      storageClassName: {class}
      accessModes: [ReadWriteOnce]
      resources: {{requests: {{storage: 1Gi}}}}
"
    )
}

/// The numbers that a database printed.
fn numbers<const COUNT: usize>(text: &str) -> Result<[u64; COUNT]> {
    let words: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
    words
        .ok()
        .and_then(|numbers| numbers.try_into().ok())
        .with_context(|| format!("not {COUNT} numbers: {text:?}"))
}

/// Writers to both databases, which go on until they are dropped. Both write the
/// numbers from 1 on, in their order, up to a hundred a second.
#[must_use = "dropping it ends the writing"]
pub struct Writers {
    postgres: Process,
    redis: Process,
}

impl Writers {
    /// Starts them, and waits until each has something acknowledged.
    ///
    /// # Errors
    /// When a database does not take what is written.
    pub async fn start(databases: Databases<'_>) -> Result<Self> {
        // Each statement is a transaction, and is answered when it is on disk.
        let postgres = "while :; do
                n=$((n + 1))
                echo \"insert into ledger values ($n, repeat(md5('$n'), 20)) returning n;\"
                sleep 0.01
            done | stdbuf -oL psql -qtA -v ON_ERROR_STOP=1";
        // The answer is the length of the list.
        let redis = "while :; do
                n=$((n + 1))
                echo \"RPUSH numbers $n\"
                sleep 0.01
            done | stdbuf -oL redis-cli";
        let writers = Self {
            postgres: start_writer(databases, "postgres", postgres)?,
            redis: start_writer(databases, "redis", redis)?,
        };
        let limit = FIRST_WRITES_LIMIT;
        eventually("the first writes are acknowledged", limit, async || {
            let seen = writers.acknowledged()?;
            Ok((seen.postgres.min(seen.redis) >= FIRST_WRITES).then_some(()))
        })
        .await?;
        Ok(writers)
    }

    /// What is acknowledged by now.
    ///
    /// # Errors
    /// When there is no record of it.
    pub fn acknowledged(&self) -> Result<Acknowledged> {
        Ok(Acknowledged {
            postgres: last_number(self.postgres.log())?,
            redis: last_number(self.redis.log())?,
        })
    }

    /// Fails if one has ended.
    ///
    /// # Errors
    /// With the end of what it printed.
    pub fn check_running(&mut self) -> Result<()> {
        self.postgres.check_running()?;
        self.redis.check_running()
    }
}

fn start_writer(databases: Databases<'_>, name: &str, script: &str) -> Result<Process> {
    let Databases { world, namespace } = databases;
    let home = world.cluster.directory().join("kubectl");
    let log = directory::root().join(format!("writes-to-{name}.log"));
    let program = world.kubectl_program().program();
    let spec = ProcessSpec::new(format!("the writer to {name}"), program, log)
        .args(["exec", "-n", namespace, &format!("{name}-0"), "--"])
        .args(["sh", "-c", script])
        .env("KUBECONFIG", world.cluster.kubeconfig())
        .env("HOME", home);
    Process::spawn(spec)
}

/// The last complete line that is a number.
fn last_number(log: &Path) -> Result<u64> {
    let text = fs::read_to_string(log).context("the writer has no log")?;
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    let last = complete.lines().rev().find_map(|line| line.parse().ok());
    Ok(last.unwrap_or_default())
}
