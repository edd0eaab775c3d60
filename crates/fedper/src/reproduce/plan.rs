//! What has to be run for some figures, and how far it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::file::Made;
use super::{Figure, Scale};
use crate::config::{Config, Settings};
use crate::error::Error;
use crate::rundir::RunDir;

/// Where a plan's runs lie.
pub(crate) const RUNS: &str = "runs";

/// The runs of some figures, each once.
pub(crate) struct Plan {
    /// The folder of everything.
    pub(crate) out: PathBuf,
    /// In the order in which they are to be run: a figure's first seed before its second.
    pub(crate) runs: Vec<PlannedRun>,
}

/// One run: one method, one seed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlannedRun {
    /// Its folder under `runs/`.
    pub(crate) name: String,
    /// The figure that asked for it first.
    pub(crate) figure: String,
    /// Everything about it but where its data lie.
    pub(crate) settings: Settings,
    /// The set that stands in for its dataset.
    pub(crate) made: Option<Made>,
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing is there.
    New,
    /// Begun, to be taken up again.
    Begun,
    /// All its rounds are done.
    Complete,
}

impl Plan {
    /// The runs of `figures` at `scale` with seeds 1 to `seeds`, of the panels whose names contain one of `panels` (all
    /// panels if there is none).
    ///
    /// # Errors
    /// [`Error::Config`] if a figure's settings contradict one another, or no panel is left.
    pub(crate) fn new(
        figures: &[Figure],
        scale: Scale,
        seeds: u64,
        panels: &[String],
        out: &Path,
    ) -> Result<Self, Error> {
        let mut runs: Vec<PlannedRun> = Vec::new();
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for figure in figures {
            for seed in 1..=seeds {
                for panel in figure.panels.iter().filter(|panel| panel.is_among(panels)) {
                    for curve in &panel.curves {
                        let settings = Settings { seed: Some(seed), ..figure.settings(panel, curve, scale) };
                        let name = run_name(&settings)?;
                        match known.get(&name).map(|&place| &runs[place]) {
                            Some(other) if other.settings == settings => continue,
                            Some(other) => {
                                return Err(Error::Config(format!(
                                    "the run {name} of {} and of {} differ in more than their names say",
                                    figure.name, other.figure
                                )));
                            }
                            None => {
                                known.insert(name.clone(), runs.len());
                                runs.push(PlannedRun {
                                    name,
                                    figure: figure.name.clone(),
                                    settings,
                                    made: figure.made(scale),
                                });
                            }
                        }
                    }
                }
            }
        }
        if runs.is_empty() {
            let known = figures.iter().flat_map(|figure| &figure.panels).map(|panel| panel.name.as_str());
            return Err(Error::Config(format!(
                "no panel is called {}; there are {}",
                panels.join(" or "),
                known.collect::<Vec<_>>().join(", ")
            )));
        }
        Ok(Self { out: out.to_owned(), runs })
    }

    /// The folder of a run.
    pub(crate) fn folder(&self, run: &PlannedRun) -> PathBuf {
        self.out.join(RUNS).join(&run.name)
    }

    /// The folder of the made sets.
    pub(crate) fn made_folder(&self, dataset: &str) -> PathBuf {
        self.out.join("made").join(dataset)
    }

    /// How far a run is.
    ///
    /// # Errors
    /// [`Error::Config`] if its folder holds another run.
    pub(crate) fn state(&self, run: &PlannedRun) -> Result<State, Error> {
        let folder = self.folder(run);
        if !folder.join("config.toml").is_file() {
            return Ok(State::New);
        }
        let found = Settings { data_dir: None, ..RunDir::settings(&folder)? };
        let found = Config::resolve(&found)?.to_toml();
        let differences = Config::differences(&Config::resolve(&run.settings)?.to_toml(), &found);
        if !differences.is_empty() {
            return Err(Error::Config(format!(
                "{} holds another run: {}; choose another --out, or move that run away",
                folder.display(),
                differences.join(", ")
            )));
        }
        Ok(if RunDir::is_complete(&folder) { State::Complete } else { State::Begun })
    }
}

/// What a run is called: what it computes, as far as figures differ in it.
pub(super) fn run_name(settings: &Settings) -> Result<String, Error> {
    let config = Config::resolve(settings)?;
    let algorithm = config.algorithm.join("+");
    let dealt = match (config.classes_per_client, config.dirichlet) {
        _ if settings.has_no_partition() => String::new(),
        (Some(k), _) => format!("-k{k}"),
        (_, Some(alpha)) => format!("-dirichlet{alpha}"),
        _ if config.by_folder => "-folders".to_owned(),
        _ => "-iid".to_owned(),
    };
    // K_P means something to FedPer alone.
    let personal = match config.personal_layers {
        Some(k_p) if algorithm == "fedper" => format!("-kp{k_p}"),
        _ => String::new(),
    };
    let Config { dataset, model, rounds, seed, .. } = &config;
    Ok(format!("{dataset}-{model}{dealt}-{algorithm}{personal}-{rounds}rounds-seed{seed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALES: [Scale; 3] = [Scale::Smoke, Scale::Small, Scale::Paper];

    fn plan(figure: &str, scale: Scale, seeds: u64, panels: &[&str]) -> Result<Plan, Error> {
        let panels: Vec<String> = panels.iter().map(|&panel| panel.to_owned()).collect();
        Plan::new(&Figure::named(figure)?, scale, seeds, &panels, Path::new("out"))
    }

    #[test]
    fn every_figure_has_a_plan_at_every_scale() {
        for scale in SCALES {
            let all = plan("all", scale, 2, &[]).unwrap();
            let one: usize = ["fig2", "fig3", "fig4", "fig7"]
                .map(|figure| plan(figure, scale, 2, &[]).unwrap().runs.len())
                .iter()
                .sum();
            // At the paper's scale figure 4 has half of figure 2's rounds.
            assert_eq!(all.runs.len() < one, scale != Scale::Paper, "{} of {one}", all.runs.len());
            for figure in Figure::named("all").unwrap() {
                assert_eq!(
                    figure.changes(scale).unwrap().is_empty(),
                    scale == Scale::Paper,
                    "{}",
                    figure.name
                );
            }
        }
    }

    #[test]
    fn a_smaller_scale_says_so_in_few_words() {
        let words = |name: &str, scale| Figure::named(name).unwrap()[0].scaled_to(scale).unwrap();
        assert_eq!(words("fig2", Scale::Small), "25 rounds, 1 local epoch");
        assert_eq!(
            words("fig2", Scale::Smoke),
            "fashion-mnist-small, 80 images a device, 6 rounds, 1 local epoch"
        );
        assert_eq!(words("fig4", Scale::Small), "1 local epoch");
        assert_eq!(words("fig7", Scale::Smoke), "a made set, 32x32, 5 rounds, 1 local epoch");
        assert_eq!(words("fig2", Scale::Paper), "");
    }

    #[test]
    fn figures_share_the_runs_that_they_have_in_common() {
        let names = |plan: Plan| plan.runs.into_iter().map(|run| run.name).collect::<Vec<_>>();
        let (two, four) = (
            names(plan("fig2", Scale::Small, 1, &[]).unwrap()),
            names(plan("fig4", Scale::Small, 1, &[]).unwrap()),
        );
        assert!(two.contains(&"cifar10-mobilenet_v1-k4-fedper-kp2-25rounds-seed1".to_owned()), "{two:?}");
        assert!(four.contains(&"cifar10-mobilenet_v1-k4-fedper-kp2-25rounds-seed1".to_owned()), "{four:?}");
        assert!(four.contains(&"cifar10-mobilenet_v1-k4-fedavg-25rounds-seed1".to_owned()), "{four:?}");
    }

    #[test]
    fn seeds_come_one_after_the_other_and_panels_can_be_chosen() {
        let plan = plan("fig2", Scale::Smoke, 2, &["mobilenet-k8"]).unwrap();
        let names: Vec<&str> = plan.runs.iter().map(|run| run.name.as_str()).collect();
        let stem = "fashion-mnist-small-mobilenet_v1-k8";
        let expected = [
            "fedper-kp2-6rounds-seed1",
            "fedavg-6rounds-seed1",
            "fedper-kp2-6rounds-seed2",
            "fedavg-6rounds-seed2",
        ];
        assert_eq!(names, expected.map(|end| format!("{stem}-{end}")));
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let error = |figure, panels: &[&str]| match plan(figure, Scale::Smoke, 1, panels) {
            Ok(_) => panic!("{figure} {panels:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(
            error("fig1", &[]),
            "there is no figure `fig1`; there are fig2, fig3, fig4, fig7, and `all`"
        );
        assert!(error("fig4", &["k5"]).starts_with("no panel is called k5; there are mobilenet, resnet"));
    }

    #[test]
    fn a_folder_with_another_run_is_not_taken_for_this_one() {
        let out = tempfile::tempdir().unwrap();
        let plan = Plan::new(&Figure::named("fig4").unwrap(), Scale::Smoke, 1, &[], out.path()).unwrap();
        let run = &plan.runs[0];
        assert_eq!(plan.state(run).unwrap(), State::New);
        let folder = plan.folder(run);
        std::fs::create_dir_all(&folder).unwrap();
        let write = |settings: &Settings| {
            let config = Config::resolve(settings).unwrap().to_toml();
            std::fs::write(folder.join("config.toml"), config).unwrap();
        };
        write(&Settings { data_dir: Some("elsewhere".into()), ..run.settings.clone() });
        assert_eq!(plan.state(run).unwrap(), State::Begun, "where the data lie does not matter");
        write(&Settings { lr: Some(0.5), ..run.settings.clone() });
        let error = plan.state(run).unwrap_err().to_string();
        assert!(error.contains("holds another run: lr is 0.05 here and 0.5 there"), "{error}");
    }
}
