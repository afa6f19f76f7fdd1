//! The demo on a terminal: tables, the curve of bytes per change, events, and the keys that end it.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use crossterm::event::{self, Event as Input, KeyCode, KeyModifiers};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Cell, Paragraph, Row, Sparkline, Table},
};
use tokio::sync::watch;

use crate::{
    board::{Board, Event},
    figures::{bytes, count, millis, ratio, seconds},
    held_log,
    meter::{Meter, Reading, TableReading},
};

const DRAW_EVERY: Duration = Duration::from_millis(200);

pub fn show(board: &Board, quit: &watch::Sender<bool>, ended: &AtomicBool) -> io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let _held = held_log::hold();
    let result = draw_until(&mut terminal, board, quit, ended);
    ratatui::restore();
    result
}

fn draw_until(
    terminal: &mut ratatui::DefaultTerminal,
    board: &Board,
    quit: &watch::Sender<bool>,
    ended: &AtomicBool,
) -> io::Result<()> {
    let mut meter = Meter::new(board);
    while !ended.load(Relaxed) {
        let (reading, events) = (meter.read(board), board.events_after(0));
        terminal.draw(|frame| draw(frame, &reading, &events))?;
        if event::poll(DRAW_EVERY)? && is_quit(&event::read()?) {
            let _ = quit.send(true);
        }
    }
    Ok(())
}

fn is_quit(input: &Input) -> bool {
    let Some(key) = input.as_key_press_event() else { return false };
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => true,
        KeyCode::Char('c') => key.modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}

fn draw(frame: &mut Frame<'_>, reading: &Reading, events: &[Event]) {
    let tables_height = reading.tables.len() as u16 + 4;
    let areas = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(tables_height),
        Constraint::Length(2),
        Constraint::Max(8),
        Constraint::Min(3),
        Constraint::Length(1),
    ]);
    let [title, tables, facts, curve, log, keys] = areas.areas(frame.area());
    draw_title(frame, title, reading);
    draw_tables(frame, tables, reading);
    draw_facts(frame, facts, reading);
    draw_curve(frame, curve, reading);
    draw_events(frame, log, events);
    let help = Line::from(vec![
        " q".bold(),
        " ends the demo: the replica is then compared with its source".dim(),
    ]);
    frame.render_widget(help, keys);
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, reading: &Reading) {
    let title = Line::from(vec![
        " walgate demo ".bold().reversed(),
        "  Postgres → NATS JetStream → SQLite   ".dim(),
        seconds(reading.elapsed).into(),
    ]);
    let stage = Line::from(vec![" now: ".dim(), reading.stage.clone().bold().yellow()]);
    frame.render_widget(Paragraph::new(vec![title, stage]), area);
}

fn draw_tables(frame: &mut Frame<'_>, area: Rect, reading: &Reading) {
    let header =
        ["table", "rows", "rows/s", "lag", "raw", "sent", "ratio", "ratio now", "dictionary"];
    let header = Row::new(header.map(|title| Cell::from(Line::from(title).right_aligned()))).bold();
    let rows = reading.tables.iter().map(|table| table_row(table));
    let total = table_row(&reading.total).bold();
    let widths = [10, 12, 10, 9, 10, 10, 8, 10, 12].map(Constraint::Length);
    let block = Block::bordered().title(" tables, since the start ").dim();
    let table =
        Table::new(rows.chain([total]), widths).header(header).block(block).style(Style::reset());
    frame.render_widget(table, area);
}

fn table_row(table: &TableReading) -> Row<'static> {
    let dictionary = match table.dictionary_revision {
        0 => "–".dim(),
        revision => format!("revision {revision}").green(),
    };
    let cells: [Span<'static>; 9] = [
        table.name.clone().into(),
        count(table.rows).into(),
        count(table.rows_per_s as u64).into(),
        millis(table.lag).into(),
        bytes(table.bytes.raw).into(),
        bytes(table.bytes.sent).into(),
        ratio(table.bytes.ratio()).into(),
        ratio(table.ratio_now).cyan(),
        if table.name == "total" { "".into() } else { dictionary },
    ];
    Row::new(cells.map(|cell| Cell::from(Line::from(cell).right_aligned())))
}

fn draw_facts(frame: &mut Frame<'_>, area: Rect, reading: &Reading) {
    let latency = reading.latency.map_or_else(
        || "not measured yet".to_owned(),
        |l| format!("p50 {} · p99 {} of {}", millis(l.p50), millis(l.p99), count(l.count as u64)),
    );
    let line = Line::from(vec![
        " writer ".dim(),
        format!("{:.0} transactions/s", reading.transactions_per_s).into(),
        "   gateway lag ".dim(),
        millis(reading.gateway_lag).into(),
        "   COMMIT → seen in the replica ".dim(),
        latency.into(),
    ]);
    frame.render_widget(Paragraph::new(line), area);
}

fn draw_curve(frame: &mut Frame<'_>, area: Rect, reading: &Reading) {
    let last = reading.bytes_per_change.last().copied().unwrap_or_default();
    let block =
        Block::bordered().title(format!(" bytes sent for one change, per second: {last} ")).dim();
    let shown = area.width.saturating_sub(2) as usize;
    let skipped = reading.bytes_per_change.len().saturating_sub(shown);
    let curve = Sparkline::default().block(block).data(&reading.bytes_per_change[skipped..]).cyan();
    frame.render_widget(curve, area);
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, events: &[Event]) {
    let shown = area.height.saturating_sub(2) as usize;
    let skipped = events.len().saturating_sub(shown);
    let line = |event: &Event| {
        Line::from(vec![format!(" {:>7}  ", seconds(event.at)).dim(), event.text.clone().into()])
    };
    let lines: Vec<Line<'_>> = events[skipped..].iter().map(line).collect();
    frame.render_widget(
        Paragraph::new(lines).block(Block::bordered().title(" what happened ").dim()),
        area,
    );
}
