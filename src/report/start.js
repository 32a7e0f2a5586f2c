// The page is made once everything is declared.

function start() {
  document.getElementById('title').textContent = `cadwright: ${data.runs.map(run => run.name).join(', ')}`;
  startTheme();
  overview();
  results();
  curves();
  parts();
  reproduce();
}

start();
