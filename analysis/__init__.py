"""Scripts that look closer at tickets and at adversarial texts."""
