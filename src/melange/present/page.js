(function () {
  "use strict";
  var settings = { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false };
  function unpack(id) {
    var packed = Uint8Array.from(atob(document.getElementById(id).textContent), function (c) { return c.charCodeAt(0); });
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }
  function show(figures) {
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
  }
  function explain(error) {
    document.querySelectorAll(".plot").forEach(function (plot) {
      plot.style.height = "auto";
      plot.textContent = "This picture cannot be drawn (" + error.message + "); its numbers are below.";
    });
  }
  if (!window.DecompressionStream) {
    explain(new Error("browsers since 2023 can"));
    return;
  }
  Promise.all([unpack("plotly"), unpack("figures")]).then(function (texts) {
    var library = document.createElement("script");
    library.textContent = texts[0];
    document.head.appendChild(library);
    show(JSON.parse(texts[1]));
  }).catch(explain);
})();
