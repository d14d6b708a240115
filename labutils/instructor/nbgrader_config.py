# What nbgrader has to know about these labs. `labs release --nbgrader` puts a copy into the folder of a course.

from pathlib import Path

import yaml

c = get_config()  # noqa: F821

c.ClearSolutions.code_stub = {
    "python": "# YOUR CODE HERE\nraise NotImplementedError('put your answer in the place of this line')"}

c.CourseDirectory.ignore.append("runs")         # what a run of a lab leaves is neither handed out nor taken in
c.GenerateFeedbackApp.CourseDirectory.ignore = ["*"]        # feedback is one file, which contains its pictures
c.HTMLExporter.embed_images = True

c.Execute.timeout = 1800                        # seconds for one cell; nbgrader's own 30 interrupt a training
c.OverwriteCells.add_missing_cells = True       # checks that a student has deleted
c.Autograde.autograde_preprocessors.insert(1, "labutils.instructor.grading.WarningsAreNoErrors")

c.Autograde.sanitize_preprocessors.append("labutils.instructor.grading.SetParameters")
c.SetParameters.values = yaml.safe_load(Path(__file__).with_name("grading.yml").read_text(encoding="utf-8"))
