//! The names that a data set gives its columns and splits.

use cadwright_rewards::section;

use super::Split;
use super::error::DataError;

section! {
    /// `[data.columns]`: names of columns. Empty: the form's own name, as docs/data.md lists them.
    Columns {
        /// The picture.
        image: String = "",
        /// The ground-truth program.
        program: String = "",
        /// The ground-truth shape: an STL or STEP file.
        shape: String = "",
        /// What identifies the part.
        id: String = "",
        /// A class such as `easy`, by which the tables of CADBench are divided.
        label: String = "",
    }
}

section! {
    /// `[data.splits]`: names of splits, in names of files, directories and lists.
    SplitNames {
        /// The rows that a model learns from.
        train: String = "train",
        /// The rows that choose checkpoints.
        validation: String = "validation",
        /// The rows that reports are about.
        test: String = "test",
    }
}

impl SplitNames {
    /// The data set's name of a split.
    pub fn of(&self, split: Split) -> &str {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
            Split::Test => &self.test,
        }
    }

    /// All three, without repetitions.
    pub fn all(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Split::ALL.map(|split| self.of(split)).to_vec();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// The columns of a table that are read. All names are filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnNames {
    names: Columns,
    /// The columns of further pictures.
    further: Vec<String>,
    /// Roles whose column the configuration names, so that it must be there.
    required: Vec<&'static str>,
}

impl ColumnNames {
    /// The names for parquet files: those of GenCAD-Code, unless `columns` has others. If there are
    /// `views`, each has a column of its own: `image_front` for the view `front`.
    pub fn of_parquet(columns: &Columns, views: &[String]) -> Self {
        Self::with_defaults(columns, views, ["image", "cadquery", "ground_truth_mesh", "deepcad_id", "label"])
    }

    /// The names for JSONL files, with a field for each of `views`.
    pub fn of_jsonl(columns: &Columns, views: &[String]) -> Self {
        Self::with_defaults(columns, views, ["image", "program", "shape", "id", "label"])
    }

    fn with_defaults(columns: &Columns, views: &[String], defaults: [&str; 5]) -> Self {
        let given = [&columns.image, &columns.program, &columns.shape, &columns.id, &columns.label];
        let [image, program, shape, id, label] =
            [0, 1, 2, 3, 4].map(|i| if given[i].is_empty() { defaults[i].to_owned() } else { given[i].clone() });
        let mut pictures: Vec<String> = views.iter().map(|view| format!("{image}_{view}")).collect();
        let image = if pictures.is_empty() { image } else { pictures.remove(0) };
        let roles = ["image", "program", "shape", "id", "label"];
        let required =
            roles.into_iter().zip(given).filter(|(_, name)| !name.is_empty()).map(|(role, _)| role).collect();
        Self { names: Columns { image, program, shape, id, label }, further: pictures, required }
    }

    /// The names by role.
    pub fn roles(&self) -> [(&'static str, &str); 5] {
        let Columns { image, program, shape, id, label } = &self.names;
        [("image", image), ("program", program), ("shape", shape), ("id", id), ("label", label)]
    }

    /// The columns of further pictures, in the order of the views.
    pub fn further(&self) -> &[String] {
        &self.further
    }

    /// The roles that a column plays; several if the configuration says so.
    pub fn roles_of(&self, column: &str) -> impl Iterator<Item = &'static str> {
        self.roles().into_iter().filter(move |(_, name)| *name == column).map(|(role, _)| role)
    }

    /// Checks that the columns `found` in a file are enough.
    ///
    /// # Errors
    /// [`DataError::MissingColumn`]: a column that the configuration names, the pictures if
    /// `needs_pictures`, or programs and shapes both are missing.
    pub fn check(&self, path: &std::path::Path, found: &[String], needs_pictures: bool) -> Result<(), DataError> {
        let has = |name: &str| found.iter().any(|column| column == name);
        let names = self.roles();
        let is_missing = |(role, name): &&(&'static str, &str)| {
            let is_needed = self.required.contains(role) && (*role != "image" || needs_pictures);
            (is_needed || *role == "image" && needs_pictures) && !has(name)
        };
        let missing = names.iter().find(is_missing).map(|(role, name)| ((*name).to_owned(), *role));
        let missing_view = self.further.iter().find(|name| needs_pictures && !has(name));
        let missing = missing.or_else(|| missing_view.map(|name| (name.clone(), "image")));
        let has_truth = has(&self.names.program) || has(&self.names.shape);
        let truth = (!has_truth).then(|| (self.names.program.clone(), "program"));
        match missing.or(truth) {
            None => Ok(()),
            Some((column, role)) => Err(DataError::MissingColumn {
                path: path.to_owned(),
                column,
                role,
                shape: (role == "program" && !self.required.contains(&"program")).then(|| self.names.shape.clone()),
                found: found.to_vec(),
            }),
        }
    }
}
