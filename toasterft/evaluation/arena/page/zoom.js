// A picture at full size: wheel or two fingers to zoom, drag to move, double click to and fro.

const dialog = document.getElementById("zoom");
const image = document.getElementById("zoom-image");
const LARGEST = 12;
const fingers = new Map(); // pointer id → [x, y]
let scale = 1;
let x = 0;
let y = 0;

export function openZoom(src) {
  image.src = src;
  fit();
  dialog.showModal();
}

function fit() {
  [scale, x, y] = [1, 0, 0];
  draw();
}

function draw() {
  // Some of the picture always stays on the screen.
  const [width, height] = [dialog.clientWidth, dialog.clientHeight];
  x = Math.min(width / 2, Math.max(width / 2 - width * scale, x));
  y = Math.min(height / 2, Math.max(height / 2 - height * scale, y));
  image.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
}

function zoomAt(px, py, factor) {
  const next = Math.min(LARGEST, Math.max(1, scale * factor));
  x = px - ((px - x) * next) / scale;
  y = py - ((py - y) * next) / scale;
  scale = next;
  if (scale === 1) [x, y] = [0, 0];
  draw();
}

const middle = () => [dialog.clientWidth / 2, dialog.clientHeight / 2];
document.getElementById("zoom-in").addEventListener("click", () => zoomAt(...middle(), 1.5));
document.getElementById("zoom-out").addEventListener("click", () => zoomAt(...middle(), 1 / 1.5));
document.getElementById("zoom-fit").addEventListener("click", fit);
document.getElementById("zoom-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => fingers.clear());
dialog.addEventListener("keydown", (event) => {
  if (event.key === "+" || event.key === "=") zoomAt(...middle(), 1.5);
  else if (event.key === "-") zoomAt(...middle(), 1 / 1.5);
  else if (event.key === "0") fit();
  else if (event.key.toLowerCase() === "z") dialog.close();
});
dialog.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    zoomAt(event.clientX, event.clientY, Math.exp(-event.deltaY / 400));
  },
  { passive: false },
);
image.addEventListener("dblclick", (event) => (scale > 1 ? fit() : zoomAt(event.clientX, event.clientY, 3)));
image.addEventListener("dragstart", (event) => event.preventDefault());

image.addEventListener("pointerdown", (event) => {
  image.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, [event.clientX, event.clientY]);
  image.classList.add("dragged");
});
image.addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const now = [event.clientX, event.clientY];
  const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
  fingers.set(event.pointerId, now);
  if (other) {
    const apart = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]);
    zoomAt((now[0] + other[0]) / 2, (now[1] + other[1]) / 2, apart(now) / Math.max(1, apart(before)));
  } else if (scale > 1) {
    x += now[0] - before[0];
    y += now[1] - before[1];
    draw();
  }
});
for (const type of ["pointerup", "pointercancel"]) {
  image.addEventListener(type, (event) => {
    fingers.delete(event.pointerId);
    if (!fingers.size) image.classList.remove("dragged");
  });
}
