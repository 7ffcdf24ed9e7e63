(function () {
  "use strict";
  var figures = JSON.parse(document.getElementById("figures").textContent);
  var settings = { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false };
  function draw(name, index) {
    var view = figures[name][index];
    document.getElementById(name + "-finding").textContent = view.finding;
    var plot = document.getElementById(name + "-plot");
    plot.style.height = view.figure.layout.height + "px";
    return Plotly.react(plot, view.figure.data, view.figure.layout, settings);
  }
  Object.keys(figures).forEach(function (name) { draw(name, 0); });
  document.querySelectorAll("select[data-picture]").forEach(function (select) {
    select.addEventListener("change", function () { draw(select.dataset.picture, Number(select.value)); });
  });
})();
