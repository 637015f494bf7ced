//! PostgreSQL and Redis are saved by a Schedule while they are written to, their
//! cluster is lost, and they start in another one: in another namespace, on
//! another storage class, with everything that was acknowledged before the
//! snapshots. Nothing that was made on the way is left anywhere.

use lifebuoy_scenarios::{NodeWorlds, bring_back_databases, node_scenario, save_databases};

#[test]
fn databases_start_elsewhere_with_all_that_was_acknowledged() {
    node_scenario(&NodeWorlds::needs_of_databases(), async {
        let NodeWorlds { a, b, s3: _s3 } = NodeWorlds::start_for_databases().await?;
        let mut tell = |what: &str, detail: &str| println!("{what} ({detail})");
        let known = a.recorded(save_databases(&a, &mut tell).await).await?;
        drop(a);
        let found = bring_back_databases(&b, &known, &mut tell).await;
        b.recorded(found).await
    });
}
