// Light or dark: what the user chose, else what the system says.
{
  const CHOICES = { auto: "Auto", light: "Light", dark: "Dark" };
  const chosen = () => {
    const stored = localStorage.getItem("theme");
    return stored in CHOICES ? stored : "auto";
  };
  const apply = () => {
    document.documentElement.dataset.theme = chosen();
  };
  apply();

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => {
      button.textContent = CHOICES[chosen()];
      button.setAttribute("aria-label", `Colours: ${CHOICES[chosen()]}`);
    };
    button.addEventListener("click", () => {
      const names = Object.keys(CHOICES);
      const next = names[(names.indexOf(chosen()) + 1) % names.length];
      localStorage.setItem("theme", next);
      apply();
      label();
    });
    label();
  });
}
