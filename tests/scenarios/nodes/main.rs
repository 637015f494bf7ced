//! The user stories that need pods that run: on real nodes, with storage that
//! has snapshots, and the operator in pods as its chart installs it. Root only.

mod the_operator_runs_in_pods;
